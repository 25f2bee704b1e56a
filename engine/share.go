package engine

// What the connections of a loop have in common has shares (S32), so that whoever comes first does
// not take it from the others. A connection may hold a part of what is free at the moment, as
// switches share their buffers among ports. Then many that take all they can get leave the others
// about as much as each of them has, and one that is alone gets most of it.

const (
	// ackPart is the part of the free acks that one connection may hold.
	ackPart = 8
	// ackReserve is the part of all acks of a loop that is kept for connections with few of them.
	ackReserve = 4
	// ackFew is the part of all acks of a loop that a connection gets out of the reserve, and
	// ackLeft the part of what is free that it gets when the reserve is nearly used up.
	ackFew  = 1 << 13
	ackLeft = 1 << 10
)

// ackShare is how many sends of one connection may wait for an ack now, of all that the loop may
// wait for.
func (l *loop) ackShare() int {
	return shareOf(l.mostAcks, l.acks.Len(), ackPart)
}

// shareOf is how much one connection may hold of what there is most of, while all together hold that
// much: a part of what is free beyond a reserve, and a few in any case.
func shareOf(most, held int, part uint) int {
	all, free := uint(most), uint(max(0, most-held))
	share := max(1, min(all/ackFew, free/ackLeft))
	if reserve := all / ackReserve; free > reserve {
		share = max(share, (free-reserve)/part)
	}
	return int(share)
}
