;; Says that its name is a million bytes long.

(func $on_describe
    (i32.store (i32.const 260) (i32.const 1000000)))
