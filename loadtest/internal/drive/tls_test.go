package drive

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"distmsg/internal/certs/certstest"
)

// TestTunnel hands what a server sends to a tunnel, in parts of every size.
func TestTunnel(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	p := ca.Issue(t, certstest.Request{})
	server, client := &tls.Config{Certificates: []tls.Certificate{p.TLS}}, &tls.Config{RootCAs: ca.Pool()}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, size := range []int{1, 2, 3, 5, 100, 16 << 10, 1 << 20} {
			config := client.Clone()
			config.MaxVersion = version
			testTunnel(t, server, config, size)
		}
	}
}

func testTunnel(t *testing.T, server, client *tls.Config, size int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	text := bytes.Repeat([]byte("0123456789abcdef"), 4<<10) // four records
	served := make(chan error, 1)
	var heard []byte
	go func() {
		served <- func() error {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			secure := tls.Server(c, server)
			if _, err := secure.Write(text); err != nil {
				return err
			}
			if err := secure.CloseWrite(); err != nil {
				return err
			}
			heard, err = io.ReadAll(secure)
			return err
		}()
	}()
	socket, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	tunnel, err := secure(t.Context(), client, socket, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := tunnel.open(nil, nil); len(b) > 0 || err != nil {
		t.Errorf("without input: %q, %v", b, err)
	}
	out, err := tunnel.seal(text[:100], false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Write(out); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for part := make([]byte, size); err == nil; {
		var n int
		n, readErr := socket.Read(part)
		if readErr != nil {
			t.Fatalf("parts of %d: %v before the end of TLS", size, readErr)
		}
		got, err = tunnel.open(got, part[:n])
	}
	if !errors.Is(err, io.EOF) || !bytes.Equal(got, text) {
		t.Fatalf("parts of %d: %d bytes, %v", size, len(got), err)
	}
	if out, err = tunnel.seal(text[100:200], true); err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Write(out); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil || !bytes.Equal(heard, text[:200]) {
		t.Fatalf("parts of %d: the server has heard %d bytes, %v", size, len(heard), err)
	}
}
