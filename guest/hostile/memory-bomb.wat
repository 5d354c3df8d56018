;; Takes all the memory that it gets, and breaks off when it gets no more.

(func $on_evaluate
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 8)) (i32.const -1))))
    unreachable)
