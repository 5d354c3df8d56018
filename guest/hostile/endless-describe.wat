;; Never says what it is.

(func $on_describe
    (loop $forever (br $forever)))
