package engine

import (
	"testing"
	"unsafe"
)

// An idle connection is mostly this struct. The heap has places of 576 bytes, and then of 640. In
// each of them, the runtime needs 8 for itself.
func TestConnSize(t *testing.T) {
	const most = 576 - 8
	if size := unsafe.Sizeof(conn{}); size > most {
		t.Errorf("a connection takes %d bytes, at most %d are wanted", size, most)
	}
}

// What a message touches of its receiver's connection is in two lines of the CPU's caches.
func TestHotConn(t *testing.T) {
	const line = 64
	for range 100 {
		c := newConn(clientConn, nil, 0)
		first := uintptr(unsafe.Pointer(&c.out.conn))
		behind := uintptr(unsafe.Pointer(&c.loop)) + unsafe.Sizeof(c.loop)
		if first%line != 0 || behind > first+2*line {
			t.Fatalf("it begins %d bytes behind the beginning of a line, and takes %d bytes", first%line, behind-first)
		}
	}
}
