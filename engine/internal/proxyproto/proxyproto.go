// Package proxyproto reads the header with which a load balancer begins a connection that it passes
// on: the PROXY protocol, version 2. The header says from which address the connection came. All
// functions may be called from any goroutine, and keep none of their arguments.
package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The header, byte by byte:
//
//	0  12  the signature
//	12  1  version 2 in the upper four bits, the command in the lower four: 0 LOCAL, 1 PROXY
//	13  1  the family in the upper four bits: 0 none, 1 IPv4, 2 IPv6, 3 Unix;
//	       the transport in the lower four: 0 none, 1 stream, 2 datagram
//	14  2  how many bytes follow, in the network's byte order
//	16  …  source address, destination address, source port, destination port: 12 bytes for IPv4,
//	       36 for IPv6, 216 for Unix; after that, fields (TLVs) that nobody here needs
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	fixedSize = 16
	inet4Size = 12
	inet6Size = 36

	version2      = 0x20
	commandLocal  = 0
	commandProxy  = 1
	familyNone    = 0x00
	streamOfInet4 = 0x11
	streamOfInet6 = 0x21
	streamOfUnix  = 0x31
)

// MaxSize is the size of the longest header.
const MaxSize = fixedSize + 1<<16 - 1

// ErrNoHeader means that the connection does not begin with a header.
var ErrNoHeader = errors.New("no PROXY protocol header, version 2")

// Header is what a header says.
type Header struct {
	// Source is where the connection came from. It is not valid if the proxy does not say: for
	// connections of its own (LOCAL), as in health checks, and for those without IP addresses.
	Source netip.AddrPort
}

// Parse reads the header that b begins with, and returns its size. The size is 0 if b may be the
// beginning of a longer header.
func Parse(b []byte) (h Header, size int, err error) {
	if n := min(len(b), len(signature)); string(b[:n]) != signature[:n] {
		return h, 0, ErrNoHeader
	}
	if len(b) < fixedSize {
		return h, 0, nil
	}
	follow, err := parseFixed(b[:fixedSize])
	if err != nil {
		return h, 0, err
	}
	if len(b) < fixedSize+follow {
		return h, 0, nil
	}
	return parseAddress(b), fixedSize + follow, nil
}

// parseFixed checks the first 16 bytes, whose signature has been checked. It returns how many more
// there are.
func parseFixed(b []byte) (follow int, err error) {
	command, family := b[12]&0x0f, b[13]
	follow = following(b)
	if b[12]&0xf0 != version2 {
		return 0, fmt.Errorf("PROXY protocol version %d: want 2", b[12]>>4)
	}
	if command > commandProxy {
		return 0, fmt.Errorf("PROXY protocol command %d: want 0 or 1", command)
	}
	if command == commandLocal {
		return follow, nil
	}
	need := 0
	switch family {
	case familyNone, streamOfUnix: // nothing that we read
	case streamOfInet4:
		need = inet4Size
	case streamOfInet6:
		need = inet6Size
	default:
		return 0, fmt.Errorf("PROXY protocol address family and transport %#02x: want TCP", family)
	}
	if follow < need {
		return 0, fmt.Errorf("PROXY protocol header with %d bytes for addresses: want at least %d", follow, need)
	}
	return follow, nil
}

// following returns how many bytes follow the first 16, which are in b.
func following(b []byte) int { return int(binary.BigEndian.Uint16(b[14:])) }

// parseAddress returns what a header says that parseFixed has accepted.
func parseAddress(b []byte) (h Header) {
	if b[12]&0x0f == commandLocal {
		return h
	}
	switch at := b[fixedSize:]; b[13] {
	case streamOfInet4:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(at[:4])), binary.BigEndian.Uint16(at[8:]))
	case streamOfInet6:
		// an IPv4 address is one, however it is written
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(at[:16])).Unmap(), binary.BigEndian.Uint16(at[32:]))
	}
	return h
}

// Read reads a header from r, and not a byte more. An error of r is returned as it is, except that
// io.EOF means that r had nothing at all.
func Read(r io.Reader) (Header, error) {
	b := make([]byte, fixedSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return Header{}, err
	}
	h, size, err := Parse(b)
	if err != nil || size > 0 {
		return h, err
	}
	b = append(b, make([]byte, following(b))...)
	if _, err := io.ReadFull(r, b[fixedSize:]); err != nil {
		return Header{}, unexpected(err)
	}
	h, _, err = Parse(b)
	return h, err
}

// unexpected returns err of a reader in the middle of a header.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
