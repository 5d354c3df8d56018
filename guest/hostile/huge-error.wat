;; Fails with 60,000 bytes of escape sequences for the operator's terminal.

(func $on_evaluate
    ;; The error that the template returns, made longer: its text is at 4096.
    (i32.store (i32.const 4) (i32.const 4096))
    (i32.store (i32.const 8) (i32.const 60000))
    (memory.fill (i32.const 4096) (i32.const 0x1b) (i32.const 60000))
    (global.set $fails (i32.const 1)))
