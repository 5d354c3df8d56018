;; Describes its config by 300,000 bytes of JSON, which would be many times as many once parsed.

(func $on_describe (local $end i32)
    (drop (memory.grow (i32.const 8)))
    ;; `{"a":[0,0` and so on, `,0,0,0,0` at a time, and `]}`.
    (i32.store8 (i32.const 65535) (i32.const 0x7b))
    (i64.store (i32.const 65536) (i64.const 0x302c305b3a226122))
    (local.set $end (i32.const 65544))
    (loop $more
        (i64.store (local.get $end) (i64.const 0x302c302c302c302c))
        (local.set $end (i32.add (local.get $end) (i32.const 8)))
        (br_if $more (i32.lt_u (local.get $end) (i32.const 365536))))
    (i32.store16 (local.get $end) (i32.const 0x7d5d))
    (i32.store (i32.const 280) (i32.const 65535))
    (i32.store (i32.const 284) (i32.sub (i32.add (local.get $end) (i32.const 2)) (i32.const 65535))))
