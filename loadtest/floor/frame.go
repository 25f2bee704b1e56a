package floor

import (
	"encoding/binary"
	"errors"
)

// A Kind says what a frame is.
type Kind byte

// The kinds. The relay knows Claim and Join only.
const (
	Claim   Kind = iota // no body: the sender gets the frames to this destination
	Message             // the body is what the two clients agree on
	Ack                 // as Message; the answer to one
	Ping                // as Message; to a number of one's own
	Join                // no body: the sender gets the frames of others to this group
)

const (
	lengthLen = 4
	headerLen = lengthLen + 4 + 1
	maxFrame  = 128 << 20
)

// Frame is a complete frame.
type Frame struct {
	To   uint32
	Kind Kind
	Body []byte // a view into what was read
}

var errLength = errors.New("floor: bad length of a frame")

// Begin appends the beginning of a frame. The body has size bytes, which the caller appends.
func Begin(b []byte, to uint32, kind Kind, size int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(headerLen-lengthLen+size))
	b = binary.LittleEndian.AppendUint32(b, to)
	return append(b, byte(kind))
}

// Next reads the frame at the beginning of b and returns how many bytes it takes. It returns 0 if
// the frame is not complete.
func Next(b []byte) (f Frame, used int, err error) {
	n, err := length(b)
	if err != nil || n == 0 || len(b) < n {
		return f, 0, err
	}
	return Frame{binary.LittleEndian.Uint32(b[lengthLen:]), Kind(b[lengthLen+4]), b[headerLen:n]}, n, nil
}

// length returns how many bytes the frame at the beginning of b takes, or 0 if it is too short to
// say that.
func length(b []byte) (int, error) {
	if len(b) < lengthLen {
		return 0, nil
	}
	n := int(binary.LittleEndian.Uint32(b)) + lengthLen
	if n < headerLen || n > maxFrame {
		return 0, errLength
	}
	return n, nil
}
