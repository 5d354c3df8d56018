;; Breaks off before it has said what it is.

(func $on_describe
    unreachable)
