;; Removes what never existed, what it cannot see, the same image twice, and what is no reference. Each time it is
;; told so (it breaks off if it is not), and only what it may remove is staged.

(import "larder:image/images@0.2.0" "remove" (func $remove (param i32 i32 i32 i32)))
(data (i32.const 4096) "docker.io/acme/gone:1") ;; 21 bytes
(data (i32.const 4128) "docker.io/acme/app00001:v1") ;; 26 bytes; the grant hides it
(data (i32.const 4160) "docker.io/acme/app00003:v1") ;; 26 bytes
(data (i32.const 4192) "A B") ;; not a reference
(func $on_evaluate
    ;; It never existed: case 0, not found.
    (call $remove (i32.const 4096) (i32.const 21) (i32.const 0) (i32.const 8192))
    (if (i32.or
            (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1))
            (i32.ne (i32.load8_u (i32.const 8196)) (i32.const 0)))
        (then unreachable))
    ;; It is hidden: not found, as if it did not exist.
    (call $remove (i32.const 4128) (i32.const 26) (i32.const 0) (i32.const 8192))
    (if (i32.or
            (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1))
            (i32.ne (i32.load8_u (i32.const 8196)) (i32.const 0)))
        (then unreachable))
    ;; It may be removed.
    (call $remove (i32.const 4160) (i32.const 26) (i32.const 0) (i32.const 8192))
    (if (i32.load8_u (i32.const 8192))
        (then unreachable))
    ;; It is gone already for this run.
    (call $remove (i32.const 4160) (i32.const 26) (i32.const 0) (i32.const 8192))
    (if (i32.or
            (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1))
            (i32.ne (i32.load8_u (i32.const 8196)) (i32.const 0)))
        (then unreachable))
    ;; It is not a reference: case 4.
    (call $remove (i32.const 4192) (i32.const 3) (i32.const 0) (i32.const 8192))
    (if (i32.or
            (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1))
            (i32.ne (i32.load8_u (i32.const 8196)) (i32.const 4)))
        (then unreachable))
    ;; Neither is nothing.
    (call $remove (i32.const 4192) (i32.const 0) (i32.const 0) (i32.const 8192))
    (if (i32.or
            (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1))
            (i32.ne (i32.load8_u (i32.const 8196)) (i32.const 4)))
        (then unreachable)))
