;; Never returns from `evaluate`.

(func $on_evaluate
    (loop $forever (br $forever)))
