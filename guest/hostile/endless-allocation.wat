;; Never comes back from the allocator that the host calls to hand it an answer.

(import "larder:image/images@0.2.0" "list" (func $list (param i32)))
(func $on_allocate
    (loop $forever (br $forever)))
(func $on_evaluate
    (call $list (i32.const 8192)))
