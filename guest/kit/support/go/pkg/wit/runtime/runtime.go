// Package wit_runtime is the memory that host and component share, under the names that the generator of the bindings
// uses.
//
// What the host gives comes in many small pieces, which the garbage collector must keep although nothing points to
// them yet. They are cut from large blocks, and all blocks are held until Unpin: a policy's instance lives for one
// call, so nothing is gained by freeing earlier.
package wit_runtime

import (
	"runtime"
	"unsafe"
)

// The size of a block, in words of eight bytes, which no type of the component model is aligned more strictly than.
const blockWords = 8 << 10

var (
	block []uint64 // what is left of the newest block
	held  [][]uint64
)

// Allocate gives memory that stays where it is and is kept for as long as the pinner is not unpinned.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	pointer := unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
	pinner.Pin(pointer)
	return pointer
}

// Unpin lets the garbage collector have what the host gave, as soon as nothing points to it.
func Unpin() {
	block, held = nil, nil
}

// The host's allocator: canonical ABI, `realloc`. The host never asks to move what it was given.
//
//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	if old != nil || oldSize != 0 {
		panic("the host wants to resize what it was given")
	}
	words := int((size + 7) / 8)
	if words > len(block) {
		block = make([]uint64, max(words, blockWords))
		held = append(held, block)
	}
	pointer := unsafe.Pointer(unsafe.SliceData(block))
	block = block[words:]
	return pointer
}
