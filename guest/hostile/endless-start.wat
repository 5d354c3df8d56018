;; Never comes out of its start function, so that it cannot even be instantiated.

(func $begin
    (loop $forever (br $forever)))
(start $begin)
