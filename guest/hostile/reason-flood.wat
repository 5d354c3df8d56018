;; Gives a long reason for one image after another: each is short enough, together they are not.

(import "larder:image/report@0.2.0" "explain" (func $explain (param i32 i32 i32 i32) (result i32)))
(data (i32.const 4096) "docker.io/acme/app00003:v0") ;; 26 bytes, the last one a digit
(func $on_evaluate (local $i i32)
    ;; v0, v1, … v7: the digit is 25 bytes into the name.
    (loop $more
        (i32.store8 (i32.const 4121) (i32.add (i32.const 48) (local.get $i)))
        (drop (call $explain (i32.const 4096) (i32.const 26) (i32.const 8192) (i32.const 50000)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $i) (i32.const 8)))))
