;; Asks for more memory than it may have before it runs at all.

(memory $large 40)
