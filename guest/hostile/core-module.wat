;; Is no component at all: a core module, as a compiler makes it before it is made a component.

(module
    (memory (export "memory") 1))
