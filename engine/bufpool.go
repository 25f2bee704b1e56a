package engine

import "sync"

const (
	newBuf       = 2 << 10   // capacity of a fresh buffer; append grows it as needed
	largestBuf   = 128 << 10 // larger buffers are kept in a stock of their own
	largeBytes   = 4 << 20   // limit of that stock per loop; the garbage collector takes the rest
	localBufs    = 256       // how many buffers a loop keeps before it shares some
	localBytes   = 8 << 20   // how many bytes they have at most
	sharedBytes  = 32 << 20  // limit of the shared stock
	exchangeBufs = localBufs / 2
)

// bufPool is a loop's stock of write buffers. It is last in, first out, so that warm buffers are
// used again. Buffers travel between loops with the mail, so a loop that mostly receives shares its
// surplus.
type bufPool struct {
	shared *sharedBufs
	free   [][]byte
	bytes  int // in free

	// Buffers for large frames. Touching new memory costs many times more than copying a frame.
	large      [][]byte
	largeBytes int // in large
}

// sharedBufs is the stock that the loops' pools share.
type sharedBufs struct {
	mu    sync.Mutex
	free  [][]byte // guarded by mu
	bytes int      // guarded by mu
}

func (p *bufPool) get() []byte {
	if len(p.free) == 0 {
		p.free, p.bytes = p.shared.take(p.free, exchangeBufs)
	}
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		p.bytes -= cap(b)
		return b
	}
	return make([]byte, 0, newBuf)
}

// sized returns an empty buffer with a capacity of at least size bytes.
func (p *bufPool) sized(size int) []byte {
	for i, b := range p.large {
		if cap(b) >= size && cap(b) <= 2*size {
			last := len(p.large) - 1
			p.large[i], p.large[last] = p.large[last], nil
			p.large = p.large[:last]
			p.largeBytes -= cap(b)
			return b
		}
	}
	return make([]byte, 0, size)
}

func (p *bufPool) put(b []byte) {
	switch {
	case cap(b) == 0:
		return
	case cap(b) > largestBuf:
		if p.largeBytes+cap(b) <= largeBytes {
			p.large = append(p.large, b[:0])
			p.largeBytes += cap(b)
		}
		return
	}
	if len(p.free) == localBufs || p.bytes > localBytes {
		half := (len(p.free) + 1) / 2
		p.bytes -= p.shared.give(p.free[:half])
		n := copy(p.free, p.free[half:])
		clear(p.free[n:])
		p.free = p.free[:n]
	}
	p.free = append(p.free, b[:0])
	p.bytes += cap(b)
}

// take moves up to n buffers into the empty slice into, and returns their total capacity.
func (s *sharedBufs) take(into [][]byte, n int) (taken [][]byte, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := max(0, len(s.free)-n)
	for _, b := range s.free[from:] {
		bytes += cap(b)
		into = append(into, b)
	}
	s.bytes -= bytes
	clear(s.free[from:])
	s.free = s.free[:from]
	return into, bytes
}

// give adds the buffers for which there is room. It returns the total capacity of all bufs, those
// it dropped included.
func (s *sharedBufs) give(bufs [][]byte) (bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bufs {
		bytes += cap(b)
		if cap(b) <= largestBuf && s.bytes+cap(b) <= sharedBytes {
			s.bytes += cap(b)
			s.free = append(s.free, b[:0])
		}
	}
	return bytes
}
