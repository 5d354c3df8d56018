;; Asks for an image whose name has 70,000 bytes.

(import "larder:image/images@0.2.0" "get" (func $get (param i32 i32 i32)))
(func $on_evaluate
    (drop (memory.grow (i32.const 16)))
    (call $get (i32.const 4096) (i32.const 70000) (i32.const 8192)))
