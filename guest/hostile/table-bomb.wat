;; Grows its table without end.

(table $table 1 funcref)
(func $on_evaluate
    (loop $more
        (br_if $more (i32.ne (table.grow $table (ref.null func) (i32.const 100000)) (i32.const -1))))
    unreachable)
