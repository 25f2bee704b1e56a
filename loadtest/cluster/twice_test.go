package cluster

import (
	"io"
	"net"
	"sync"
	"testing"

	"distmsg/codec"
)

// twice returns the address of something that stands in front of a node, and delivers each message
// twice.
func twice(t *testing.T, node string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", node)
			if err != nil {
				client.Close()
				continue
			}
			work.Go(func() { _, _ = io.Copy(far, client); far.Close() })
			work.Go(func() { repeat(client, far); client.Close() })
		}
	})
	return l.Addr().String()
}

// repeat passes frames on, those of deliveries two times.
func repeat(to io.Writer, from io.Reader) {
	for {
		frame := make([]byte, codec.PrefixLen)
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		size := int(frame[0])<<24 | int(frame[1])<<16 | int(frame[2])<<8 | int(frame[3])
		frame = append(frame, make([]byte, size)...)
		if _, err := io.ReadFull(from, frame[codec.PrefixLen:]); err != nil {
			return
		}
		if kind, err := codec.PeekKind(frame[codec.PrefixLen:]); err == nil && kind == codec.KindDeliver {
			frame = append(frame, frame...)
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}
