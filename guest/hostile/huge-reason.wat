;; Gives a reason of 70,000 bytes.

(import "larder:image/report@0.2.0" "explain" (func $explain (param i32 i32 i32 i32) (result i32)))
(data (i32.const 4096) "docker.io/acme/gone:1") ;; 21 bytes
(func $on_evaluate
    (drop (memory.grow (i32.const 16)))
    (drop (call $explain (i32.const 4096) (i32.const 21) (i32.const 4096) (i32.const 70000))))
