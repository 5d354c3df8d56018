;; Names a string that ends past the end of its memory.

(import "larder:image/images@0.2.0" "get" (func $get (param i32 i32 i32)))
(func $on_evaluate
    (call $get (i32.const 4096) (i32.const 0x7fffffff) (i32.const 8192)))
