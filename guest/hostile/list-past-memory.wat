;; Names a list that ends past the end of its memory.

(import "larder:image/usage@0.2.0" "reclaimable-bytes" (func $reclaimable (param i32 i32 i32)))
(func $on_evaluate
    (call $reclaimable (i32.const 4096) (i32.const 0x7ffffff) (i32.const 8192)))
