;; Wants the network.

(component
    (import "wasi:sockets/tcp@0.2.0" (instance))
    (instance $policy)
    (export "larder:image/policy@0.2.0" (instance $policy)))
