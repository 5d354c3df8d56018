;; Breaks off in `evaluate`.

(func $on_evaluate
    unreachable)
