;; Removes one image after another, more than may be staged.

(import "larder:image/images@0.2.0" "remove" (func $remove (param i32 i32 i32 i32)))
(data (i32.const 4096) "docker.io/acme/app00003:v0") ;; 26 bytes, the last one a digit
(func $on_evaluate (local $i i32)
    ;; v0, v1, … v7: the digit is 25 bytes into the name.
    (loop $more
        (i32.store8 (i32.const 4121) (i32.add (i32.const 48) (local.get $i)))
        (call $remove (i32.const 4096) (i32.const 26) (i32.const 0) (i32.const 8192))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $i) (i32.const 8)))))
