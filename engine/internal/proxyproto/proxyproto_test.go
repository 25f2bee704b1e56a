package proxyproto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"distmsg/engine/internal/proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// header makes a header of any content.
func header(versionCommand, family byte, rest ...[]byte) []byte {
	body := bytes.Join(rest, nil)
	b := append([]byte(signature), versionCommand, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// addresses are those of a header: source, destination, and their ports.
func addresses(source, destination string) []byte {
	s, d := netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination)
	b := append(s.Addr().AsSlice(), d.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, s.Port()), d.Port())
}

var (
	inet4 = addresses("203.0.113.9:50000", "10.0.0.1:7400")
	inet6 = addresses("[2001:db8::9]:50001", "[2001:db8::1]:7400")
	tlv   = append([]byte{0x04, 0, 200}, make([]byte, 200)...) // a field without meaning
)

var good = []struct {
	name   string
	header []byte
	source string
}{
	{"IPv4", header(0x21, 0x11, inet4), "203.0.113.9:50000"},
	{"IPv4 with TLVs", header(0x21, 0x11, inet4, tlv, tlv), "203.0.113.9:50000"},
	{"IPv6", header(0x21, 0x21, inet6), "[2001:db8::9]:50001"},
	{"IPv6 with TLVs", header(0x21, 0x21, inet6, tlv), "[2001:db8::9]:50001"},
	{"IPv4 in IPv6", header(0x21, 0x21, addresses("[::ffff:203.0.113.9]:5", "[::1]:6")), "203.0.113.9:5"},
	{"UNSPEC", header(0x21, 0x00), ""},
	{"UNSPEC with bytes", header(0x21, 0x00, tlv), ""},
	{"Unix", header(0x21, 0x31, make([]byte, 216)), ""},
	{"LOCAL", header(0x20, 0x00), ""},
	{"LOCAL with addresses", header(0x20, 0x11, inet4), ""},
	{"LOCAL of any family", header(0x20, 0xff), ""},
	{"the longest", header(0x21, 0x11, inet4, make([]byte, 1<<16-1-len(inet4))), "203.0.113.9:50000"},
}

var bad = []struct {
	name   string
	header []byte
	want   string
}{
	{"version 1", []byte("PROXY TCP4 203.0.113.9 10.0.0.1 50000 7400\r\n"), "no PROXY protocol header"},
	{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdef"), "no PROXY protocol header"},
	{"another version", header(0x11, 0x11, inet4), "version 1"},
	{"another command", header(0x22, 0x11, inet4), "command 2"},
	{"UDP", header(0x21, 0x12, inet4), "0x12: want TCP"},
	{"another family", header(0x21, 0x41, inet4), "0x41: want TCP"},
	{"too short for IPv4", header(0x21, 0x11, inet4[:11]), "11 bytes for addresses"},
	{"too short for IPv6", header(0x21, 0x21, inet6[:35]), "35 bytes for addresses"},
}

func TestGood(t *testing.T) {
	for _, tc := range good {
		text := append(bytes.Clone(tc.header), "hello"...)
		h, size, err := proxyproto.Parse(text)
		if err != nil || size != len(tc.header) || size > proxyproto.MaxSize {
			t.Errorf("%s: size %d of %d, %v", tc.name, size, len(tc.header), err)
		}
		if got := h.Source; got.IsValid() != (tc.source != "") || got.IsValid() && got.String() != tc.source {
			t.Errorf("%s: from %v, want %s", tc.name, got, tc.source)
		}
		for _, r := range []io.Reader{bytes.NewReader(text), iotest.OneByteReader(bytes.NewReader(text))} {
			read, err := proxyproto.Read(r)
			rest, _ := io.ReadAll(r)
			if err != nil || read != h || string(rest) != "hello" {
				t.Errorf("%s: read %v, %v, and %.20q is left", tc.name, read, err, rest)
			}
		}
	}
}

// A header that is cut off at any byte is no header yet, and no error.
func TestEveryTruncation(t *testing.T) {
	for _, tc := range good {
		for n := range min(len(tc.header), 500) {
			if h, size, err := proxyproto.Parse(tc.header[:n]); err != nil || size != 0 || h.Source.IsValid() {
				t.Fatalf("%s: of %d bytes, size %d, %v, %v", tc.name, n, size, h, err)
			}
			_, err := proxyproto.Read(bytes.NewReader(tc.header[:n]))
			if !errors.Is(err, io.ErrUnexpectedEOF) && (n > 0 || !errors.Is(err, io.EOF)) {
				t.Fatalf("%s: read %d bytes, %v", tc.name, n, err)
			}
		}
	}
}

func TestBad(t *testing.T) {
	for _, tc := range bad {
		_, _, err := proxyproto.Parse(tc.header)
		_, readErr := proxyproto.Read(bytes.NewReader(tc.header))
		for _, err := range []error{err, readErr} {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
			}
		}
	}
	// another byte anywhere in the signature
	for i := range len(signature) {
		b := header(0x21, 0x11, inet4)
		b[i] ^= 1
		if _, _, err := proxyproto.Parse(b[:i+1]); !errors.Is(err, proxyproto.ErrNoHeader) {
			t.Errorf("byte %d is another one: %v", i, err)
		}
		if _, err := proxyproto.Read(bytes.NewReader(b)); !errors.Is(err, proxyproto.ErrNoHeader) {
			t.Errorf("byte %d is another one, and read: %v", i, err)
		}
	}
}

// An error of the connection stays what it is.
func TestReaderFails(t *testing.T) {
	broken := errors.New("reset by peer")
	for n := range len(good[1].header) {
		r := io.MultiReader(bytes.NewReader(good[1].header[:n]), iotest.ErrReader(broken))
		if _, err := proxyproto.Read(r); !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// Whatever comes, Read and Parse agree, and Read takes no byte of what follows a header.
func FuzzHeader(f *testing.F) {
	for _, tc := range good {
		f.Add(tc.header)
	}
	for _, tc := range bad {
		f.Add(tc.header)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, size, err := proxyproto.Parse(b)
		r := bytes.NewReader(b)
		read, readErr := proxyproto.Read(r)
		switch {
		case size > 0:
			if err != nil || readErr != nil || read != h || r.Len() != len(b)-size {
				t.Errorf("Parse: %v, %d, %v; Read: %v, %v, %d bytes are left of %d", h, size, err, read, readErr, r.Len(), len(b))
			}
		case readErr == nil || h.Source.IsValid() || read.Source.IsValid():
			t.Errorf("no header for Parse: %v; Read: %v", err, read)
		case err == nil && !errors.Is(readErr, io.EOF) && !errors.Is(readErr, io.ErrUnexpectedEOF):
			t.Errorf("for Parse, it may go on; Read: %v", readErr)
		}
	})
}
