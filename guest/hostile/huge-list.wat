;; Hands over a list of 100,000 names.

(import "larder:image/usage@0.2.0" "reclaimable-bytes" (func $reclaimable (param i32 i32 i32)))
(func $on_evaluate
    (drop (memory.grow (i32.const 16)))
    ;; Every name is empty: the list itself is what is too long.
    (call $reclaimable (i32.const 65536) (i32.const 100000) (i32.const 8192)))
