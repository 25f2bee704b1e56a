package loadtest

import (
	"encoding/binary"
	"hash/crc32"
)

// stampLen is what a stamp takes at the front of a payload, and so the smallest payload.
const stampLen = 36

// A stamp is what every message says about itself. The rest of the payload is filler; the checksum
// covers both. Layout, little endian:
//
//	 0 checksum (CRC-32C of everything behind it)   4 sender   8 receiver
//	12 run                                         20 seq     28 at
type stamp struct {
	run      uint64
	sender   uint32 // index of the sending connection
	receiver uint32 // index of the ID it is for
	seq      uint64 // the sender's number for it
	at       int64  // intended send time, nanoseconds on the run's clock
}

// castagnoli is the polynomial that processors compute. MakeTable returns the one shared table.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// put writes the stamp and the checksum of the whole payload.
func (s *stamp) put(p []byte) {
	binary.LittleEndian.PutUint32(p[4:], s.sender)
	binary.LittleEndian.PutUint32(p[8:], s.receiver)
	binary.LittleEndian.PutUint64(p[12:], s.run)
	binary.LittleEndian.PutUint64(p[20:], s.seq)
	binary.LittleEndian.PutUint64(p[28:], uint64(s.at))
	binary.LittleEndian.PutUint32(p, crc32.Checksum(p[4:], castagnoli()))
}

// read reports whether p is, bit for bit, a payload that put has completed, and fills s from it.
func (s *stamp) read(p []byte) bool {
	if len(p) < stampLen || crc32.Checksum(p[4:], castagnoli()) != binary.LittleEndian.Uint32(p) {
		return false
	}
	s.sender = binary.LittleEndian.Uint32(p[4:])
	s.receiver = binary.LittleEndian.Uint32(p[8:])
	s.run = binary.LittleEndian.Uint64(p[12:])
	s.seq = binary.LittleEndian.Uint64(p[20:])
	s.at = int64(binary.LittleEndian.Uint64(p[28:]))
	return true
}
