;; Wants files.

(component
    (import "wasi:filesystem/preopens@0.2.0" (instance))
    (instance $policy)
    (export "larder:image/policy@0.2.0" (instance $policy)))
