;; Removes more than its grant allows and does not care for the answer.

(import "larder:image/images@0.2.0" "remove" (func $remove (param i32 i32 i32 i32)))
(data (i32.const 4096) "docker.io/acme/app00003:v1") ;; 26 bytes
(data (i32.const 4128) "docker.io/acme/app00003:v2") ;; 26 bytes
(func $on_evaluate
    (call $remove (i32.const 4096) (i32.const 26) (i32.const 0) (i32.const 8192))
    (call $remove (i32.const 4128) (i32.const 26) (i32.const 0) (i32.const 8192)))
