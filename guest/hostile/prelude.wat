;; What every guest of this folder has besides its own fields: memory, an allocator, and the exports of the contract,
;; which call the guest's own functions `$on_allocate`, `$on_describe` and `$on_evaluate` first.

(memory (export "memory") 1)
;; Where the allocator gives room.
(global $heap (mut i32) (i32.const 32768))
;; Whether `evaluate` returns the error `no`.
(global $fails (mut i32) (i32.const 0))
;; The bytes that the run should free; -1 without a goal.
(global $goal (mut i64) (i64.const -1))

;; At 0 the result that is an error, at 512 the one that is ok, at 256 the description. What is from 4096 to the heap
;; belongs to the guest.
(data (i32.const 0) "\01\00\00\00\90\00\00\00\02\00\00\00")
(data (i32.const 144) "no")
(data (i32.const 160) "guest1.2.0A guest for tests.{}")
(data (i32.const 256)
    "\a0\00\00\00\05\00\00\00" "\a5\00\00\00\05\00\00\00" "\aa\00\00\00\12\00\00\00" "\bc\00\00\00\02\00\00\00")

;; Gives the same room again and again: nothing that these guests are given is kept.
(func $allocate (export "cabi_realloc") (param $old i32) (param i32 i32) (param $size i32) (result i32)
    (call $on_allocate)
    (if (i32.gt_u (i32.add (global.get $heap) (local.get $size)) (i32.mul (memory.size) (i32.const 65536)))
        (then (drop (memory.grow (i32.add (i32.div_u (local.get $size) (i32.const 65536)) (i32.const 1))))))
    (global.get $heap))

(func $describe (export "larder:image/policy@0.2.0#describe") (result i32)
    (call $on_describe)
    (i32.const 256))

(func $evaluate (export "larder:image/policy@0.2.0#evaluate") (param i64 i32 i32 i32 i32 i64) (result i32)
    (if (local.get 4) (then (global.set $goal (local.get 5))))
    (call $on_evaluate)
    (if (result i32) (global.get $fails)
        (then (i32.const 0))
        (else (i32.const 512))))
