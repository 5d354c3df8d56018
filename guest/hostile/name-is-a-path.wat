;; Calls itself `../..`.

(func $on_describe
    (i32.store (i32.const 256) (i32.const 4096)))
(data (i32.const 4096) "../..")
