package codec

import (
	"encoding/binary"
	"fmt"
)

// Limits of the wire format itself; limits that a node chooses are announced in welcome.
const (
	PrefixLen     = 4    // bytes of the length prefix
	MaxID         = 255  // bytes of a client ID
	MaxDepth      = 16   // nesting of msgpack arrays and maps, the frame's own array included
	MaxHelloFrame = 4096 // bytes of a frame before welcome
	MaxToken      = 48   // bytes of an ack token
	MaxReason     = 255  // bytes of a reason or of an error message
	// nodes in a welcome, members or drain: they fit into 1 MiB whatever their names
	MaxMembers   = 1024
	SessionIDLen = 16
	SecretLen    = 32

	// MinClientFrame is what a client must be able to read whatever max_frame is: welcome, members
	// and drain may name many nodes.
	MinClientFrame = 1 << 20

	// FrameOverhead is what a send or deliver frame needs at most besides its payload.
	FrameOverhead = 1024
)

// Split finds the first frame in b. It returns the frame's body (what follows the length prefix, a
// view into b) and the bytes taken, prefix included. With n == 0 and no error, b holds only a part
// of a frame. limit bounds the declared length; it is checked as soon as the prefix is there.
func Split(b []byte, limit int) (body []byte, n int, err error) {
	if len(b) < PrefixLen {
		return nil, 0, nil
	}
	size := binary.BigEndian.Uint32(b)
	if size == 0 {
		return nil, 0, &Error{Fault: FaultZeroLength, Field: "length", Detail: "a frame must have at least one byte"}
	}
	if uint64(size) > uint64(limit) {
		return nil, 0, &Error{Fault: FaultFrameTooLarge, Field: "length",
			Detail: fmt.Sprintf("the prefix declares %d bytes, the limit is %d", size, limit)}
	}
	if len(b)-PrefixLen < int(size) {
		return nil, 0, nil
	}
	end := PrefixLen + int(size)
	return b[PrefixLen:end:end], end, nil
}

// Missing returns how many more bytes complete the first frame in b, given that Split found it
// incomplete: the rest of the prefix, or the rest of the frame.
func Missing(b []byte) int {
	if len(b) < PrefixLen {
		return PrefixLen - len(b)
	}
	return PrefixLen + int(binary.BigEndian.Uint32(b)) - len(b)
}

// PeekKind reads the kind of a frame body and nothing else. It does not compare the declared number
// of elements with the bytes that remain, because a node's answer to an unknown kind must not
// depend on the width of that number. The decoders of the kinds compare it.
func PeekKind(body []byte) (Kind, error) {
	// One byte of array header and one of kind: what every encoder makes of an array of up to 15.
	if len(body) >= 2 && body[0]&0xf0 == 0x90 && body[0] != 0x90 && body[1] < 0x80 {
		return Kind(body[1]), nil
	}
	r := reader{b: body}
	switch n := r.count(""); {
	case n == 0:
		r.failAt(0, FaultBadLength, "kind", "the array is empty")
	case r.off == len(body):
		r.tooMany(0, "", n)
	}
	kind := r.uint("kind", maxKind)
	return Kind(kind), r.err()
}

// begin appends an empty length prefix, the array header and the kind; end fills the prefix in.
func begin(b []byte, kind Kind, fields int) ([]byte, int) {
	return append(b, 0, 0, 0, 0, 0x90|byte(fields), byte(kind)), len(b)
}

func end(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-PrefixLen))
	return b
}
