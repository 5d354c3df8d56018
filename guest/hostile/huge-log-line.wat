;; Logs one line of 70,000 bytes.

(import "larder:image/report@0.2.0" "log" (func $log (param i32 i32 i32)))
(func $on_evaluate
    (drop (memory.grow (i32.const 16)))
    (call $log (i32.const 1) (i32.const 4096) (i32.const 70000)))
