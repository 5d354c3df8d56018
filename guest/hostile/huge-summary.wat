;; Describes itself in a sentence of 60,000 bytes.

(func $on_describe
    (memory.fill (i32.const 4096) (i32.const 0x78) (i32.const 60000))
    (i32.store (i32.const 272) (i32.const 4096))
    (i32.store (i32.const 276) (i32.const 60000)))
