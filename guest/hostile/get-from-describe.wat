;; Asks for an image while it is only asked what it is, and takes the answer for one.

(import "larder:image/images@0.2.0" "get" (func $get (param i32 i32 i32)))
(data (i32.const 4096) "docker.io/acme/gone:1") ;; 21 bytes
(func $on_describe
    (call $get (i32.const 4096) (i32.const 21) (i32.const 8192))
    ;; The answer is the error `unsupported`: case 2, at the alignment of the payload.
    (if (i32.and (i32.load8_u (i32.const 8192)) (i32.eq (i32.load8_u (i32.const 8200)) (i32.const 2)))
        (then unreachable)))
