package floor

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

func frame(to uint32, kind Kind, body string) []byte {
	return append(Begin(nil, to, kind, len(body)), body...)
}

// TestFramesFromPieces feeds a stream of frames in pieces of every length.
func TestFramesFromPieces(t *testing.T) {
	want := [][]byte{frame(1, Claim, ""), frame(2, Message, "hello"), frame(70_000, Ack, "x")}
	stream := slices.Concat(want...)
	for size := 1; size <= len(stream); size++ {
		var c conn
		var got [][]byte
		for piece := range slices.Chunk(stream, size) {
			for len(piece) > 0 {
				f, used, err := c.next(piece)
				if err != nil || used == 0 {
					t.Fatalf("pieces of %d: %v, %d bytes used", size, err, used)
				}
				if f != nil {
					got = append(got, bytes.Clone(f))
				}
				piece = piece[used:]
			}
		}
		if !slices.EqualFunc(got, want, bytes.Equal) || len(c.carry) > 0 {
			t.Errorf("pieces of %d: frames %q, left %q", size, got, c.carry)
		}
	}
}

func TestBadLength(t *testing.T) {
	for _, bad := range []string{"\x04\x00\x00\x00", "\xff\xff\xff\xff"} {
		for size := 1; size <= len(bad); size++ {
			var c conn
			var err error
			for piece := range slices.Chunk([]byte(bad), size) {
				_, _, err = c.next(piece)
			}
			if err == nil {
				t.Errorf("length %q in pieces of %d is accepted", bad, size)
			}
		}
		if _, _, err := Next([]byte(bad)); err == nil {
			t.Errorf("Next accepts the length %q", bad)
		}
	}
}

// serve starts a relay and returns a function that connects to it and claims a number.
func serve(t *testing.T) (client func(number uint32) net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(number uint32) net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
		exchange(t, c, slices.Concat(frame(number, Claim, ""), frame(number, Ping, "here")), c, frame(number, Ping, "here"))
		return c
	}
}

// exchange writes to one client and expects bytes at another.
func exchange(t *testing.T, from net.Conn, sent []byte, to net.Conn, want []byte) {
	t.Helper()
	if _, err := from.Write(sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%q came (%v), want %q", got, err, want)
	}
}

func TestRelay(t *testing.T) {
	client := serve(t)
	a, b := client(1), client(2)
	message, ack := frame(2, Message, "from 1"), frame(1, Ack, "")
	exchange(t, a, slices.Concat(frame(3, Message, "to nobody"), message, message), b, slices.Concat(message, message))
	exchange(t, b, ack, a, ack)
	large := frame(2, Message, string(make([]byte, 1<<20)))
	exchange(t, a, large, b, large)

	for _, c := range []net.Conn{a, b} {
		exchange(t, c, frame(9, Join, ""), c, nil)
	}
	exchange(t, a, frame(1, Ping, ""), a, frame(1, Ping, ""))
	exchange(t, b, frame(2, Ping, ""), b, frame(2, Ping, "")) // both have joined
	group := frame(9, Message, "to all others")
	exchange(t, a, group, b, group)
	exchange(t, b, group, a, group)
	exchange(t, a, frame(1, Ping, "not mine"), a, frame(1, Ping, "not mine"))

	b.Close() // its number is free
	b = client(2)
	exchange(t, a, message, b, message)

	exchange(t, a, slices.Concat(group, frame(1, Ping, "alone")), a, frame(1, Ping, "alone"))

	exchangeEnds(t, a, frame(maxNumber, Claim, ""))
	exchangeEnds(t, client(1), frame(maxNumber, Join, ""))
	exchangeEnds(t, b, []byte("\x00\x00\x00\x00"))
}

// exchangeEnds expects that the relay closes the connection.
func exchangeEnds(t *testing.T, c net.Conn, sent []byte) {
	t.Helper()
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came, want the end of the connection", n)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("the connection stays open")
	}
}
