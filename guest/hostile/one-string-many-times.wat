;; Hands over 2000 times the same 60,000 bytes: 120 MB for the host, 16 KB for the guest.

(import "larder:image/usage@0.2.0" "reclaimable-bytes" (func $reclaimable (param i32 i32 i32)))
(func $on_evaluate (local $i i32)
    (drop (memory.grow (i32.const 1)))
    (loop $more
        (i32.store offset=4096 (i32.mul (local.get $i) (i32.const 8)) (i32.const 65536))
        (i32.store offset=4100 (i32.mul (local.get $i) (i32.const 8)) (i32.const 60000))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $i) (i32.const 2000))))
    (call $reclaimable (i32.const 4096) (i32.const 2000) (i32.const 24576)))
