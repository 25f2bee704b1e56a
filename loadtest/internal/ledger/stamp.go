package ledger

import (
	"encoding/binary"
	"hash/crc32"
)

// StampLen is the length of the stamp at the front of a payload. It is the smallest payload.
const StampLen = 36

// A Stamp is what every message says about itself. The rest of the payload is filler; the checksum
// covers both. Layout, little endian:
//
//	 0 checksum (CRC-32C of everything behind it)   4 sender   8 receiver
//	12 run                                         20 seq     28 at
type Stamp struct {
	Run      uint64
	Sender   uint32 // index of the sending connection
	Receiver uint32 // index of the ID it is for
	Seq      uint64 // the sender's number of the message
	At       int64  // intended send time, nanoseconds on the run's clock
}

// castagnoli returns the table for the polynomial that processors compute in hardware. MakeTable
// returns one shared table.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Put writes the stamp and the checksum of the whole payload.
func (s *Stamp) Put(p []byte) {
	binary.LittleEndian.PutUint32(p[4:], s.Sender)
	binary.LittleEndian.PutUint32(p[8:], s.Receiver)
	binary.LittleEndian.PutUint64(p[12:], s.Run)
	binary.LittleEndian.PutUint64(p[20:], s.Seq)
	binary.LittleEndian.PutUint64(p[28:], uint64(s.At))
	binary.LittleEndian.PutUint32(p, crc32.Checksum(p[4:], castagnoli()))
}

// SenderOf returns the sending connection of a payload with a stamp, which it does not check. It
// returns false if the payload is too short for one.
func SenderOf(p []byte) (sender uint32, ok bool) {
	if len(p) < StampLen {
		return 0, false
	}
	return binary.LittleEndian.Uint32(p[4:]), true
}

// Read reports whether p is, bit for bit, a payload that Put has completed. It fills s from p.
func (s *Stamp) Read(p []byte) bool {
	if len(p) < StampLen || crc32.Checksum(p[4:], castagnoli()) != binary.LittleEndian.Uint32(p) {
		return false
	}
	s.Sender = binary.LittleEndian.Uint32(p[4:])
	s.Receiver = binary.LittleEndian.Uint32(p[8:])
	s.Run = binary.LittleEndian.Uint64(p[12:])
	s.Seq = binary.LittleEndian.Uint64(p[20:])
	s.At = int64(binary.LittleEndian.Uint64(p[28:]))
	return true
}
