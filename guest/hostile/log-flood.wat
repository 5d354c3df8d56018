;; Logs long lines without end.

(import "larder:image/report@0.2.0" "log" (func $log (param i32 i32 i32)))
(func $on_evaluate
    (loop $more
        (call $log (i32.const 1) (i32.const 4096) (i32.const 60000))
        (br $more)))
