;; Names a string that is not UTF-8.

(import "larder:image/images@0.2.0" "get" (func $get (param i32 i32 i32)))
(data (i32.const 4096) "\ff\fe")
(func $on_evaluate
    (call $get (i32.const 4096) (i32.const 2) (i32.const 8192)))
