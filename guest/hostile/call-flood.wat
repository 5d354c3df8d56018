;; Asks for an image that is not there, without end.

(import "larder:image/images@0.2.0" "get" (func $get (param i32 i32 i32)))
(data (i32.const 4096) "docker.io/acme/gone:1") ;; 21 bytes
(func $on_evaluate
    (loop $more
        (call $get (i32.const 4096) (i32.const 21) (i32.const 8192))
        (br $more)))
