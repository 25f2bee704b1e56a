package engine

import (
	"slices"
	"testing"
	"unsafe"
)

// backing is where a buffer's bytes are.
func backing(b []byte) *byte { return unsafe.SliceData(b) }

func TestBufPool(t *testing.T) {
	shared := &sharedBufs{}
	p := &bufPool{shared: shared}
	b := p.get()
	if len(b) != 0 || cap(b) < newBuf {
		t.Errorf("a fresh buffer has %d of %d bytes", len(b), cap(b))
	}
	b = append(b, "something"...)
	p.put(b)
	if again := p.get(); backing(again) != backing(b) || len(again) != 0 {
		t.Error("the warm buffer did not come back, or not empty")
	}
	p.put(nil)
	p.put(make([]byte, 0, largestBuf+1))
	if len(p.free) != 0 {
		t.Error("nothing, or something too large, was kept")
	}
	p.put(make([]byte, 5, largestBuf))
	if len(p.free) != 1 {
		t.Error("one of the largest size was not kept")
	}
}

// Two pools and the stock between them never hand out one buffer twice, nor one with something in
// it.
func TestBufPoolSharing(t *testing.T) {
	shared := &sharedBufs{}
	giver, taker := &bufPool{shared: shared}, &bufPool{shared: shared}
	out := make(map[*byte]bool)
	get := func(p *bufPool) []byte {
		b := p.get()
		if out[backing(b)] {
			t.Fatal("a buffer is out twice")
		}
		if len(b) != 0 {
			t.Fatalf("a buffer with %d bytes in it", len(b))
		}
		out[backing(b)] = true
		return append(b, 1, 2, 3)
	}
	put := func(p *bufPool, b []byte) {
		delete(out, backing(b))
		p.put(b)
	}
	var held [][]byte
	for range 3 * localBufs {
		held = append(held, get(giver))
	}
	for _, b := range held {
		put(taker, b)
	}
	if len(taker.free) > localBufs || len(shared.free) == 0 {
		t.Errorf("%d kept, %d shared", len(taker.free), len(shared.free))
	}
	held = held[:0]
	for range 3 * localBufs {
		held = append(held, get(giver), get(taker))
	}
	// A buffer from elsewhere, for example from a client in the same process, may still be full.
	for i := range held {
		delete(out, backing(held[i]))
		shared.give(held[i : i+1])
	}
	for range 6 * localBufs {
		get(giver)
	}
}

func TestSharedBufsAreBounded(t *testing.T) {
	s := &sharedBufs{}
	for range 2 * sharedBytes / largestBuf {
		s.give([][]byte{make([]byte, largestBuf)})
	}
	if s.bytes > sharedBytes || len(s.free) != sharedBytes/largestBuf {
		t.Errorf("%d bytes in %d buffers", s.bytes, len(s.free))
	}
	got, bytes := s.take(nil, 1<<20)
	if s.bytes != 0 || len(s.free) != 0 || len(got) != sharedBytes/largestBuf || bytes != sharedBytes {
		t.Errorf("%d bytes left, %d taken", s.bytes, len(got))
	}
	if slices.ContainsFunc(got, func(b []byte) bool { return len(b) != 0 }) {
		t.Error("a buffer that is not empty")
	}
	if more, _ := s.take(got[:1], 5); len(more) != 1 {
		t.Errorf("%d from an empty stock", len(more)-1)
	}
}

// A loop that has had many large buffers in use keeps few of them.
func TestLocalBufsAreBounded(t *testing.T) {
	p := &bufPool{shared: &sharedBufs{}}
	for range localBufs {
		p.put(make([]byte, 0, largestBuf))
	}
	kept := 0
	for _, b := range p.free {
		kept += cap(b)
	}
	if kept != p.bytes || kept > localBytes+largestBuf {
		t.Errorf("%d bytes are kept, and %d were counted; %d are allowed", kept, p.bytes, localBytes+largestBuf)
	}
}

// A loop keeps some buffers for large frames, and gives one to whoever needs nearly as much.
func TestLargeBufs(t *testing.T) {
	p := bufPool{shared: new(sharedBufs)}
	first := p.sized(1 << 20)
	p.put(append(first, 1))
	if again := p.sized(1<<20 - 100); len(again) != 0 || &again[:1][0] != &first[:1][0] {
		t.Error("the buffer is not used again")
	}
	if small := p.get(); cap(small) > largestBuf {
		t.Errorf("%d bytes for a small frame", cap(small))
	}
	for range 10 {
		p.put(make([]byte, 0, 1<<20))
	}
	if p.largeBytes != largeBytes || len(p.large) != largeBytes>>20 {
		t.Errorf("%d large buffers are kept, of %d bytes", len(p.large), p.largeBytes)
	}
	if b := p.sized(largestBuf + 1); cap(b) > 2*largestBuf+2 {
		t.Errorf("%d bytes for a frame that is much shorter", cap(b))
	}
}
