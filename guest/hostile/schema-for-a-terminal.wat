;; Describes its config by JSON that clears a terminal and turns its text around.

(data (i32.const 4096) "{\22a\22:\22\c2\9b2J\e2\80\aex\22}") ;; 16 bytes
(func $on_describe
    (i32.store (i32.const 280) (i32.const 4096))
    (i32.store (i32.const 284) (i32.const 16)))
