;; Has the names of the contract and types of its own.

(component
    (import "larder:image/images@0.2.0" (instance (export "prune" (func))))
    (instance $policy)
    (export "larder:image/policy@0.2.0" (instance $policy)))
