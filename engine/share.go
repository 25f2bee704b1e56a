package engine

import "distmsg/engine/internal/share"

// ackPart is the part of the free acks that one connection may hold.
const ackPart = 8

// share is how many sends of one connection may wait for an ack now, of all that the loop may
// wait for.
func (s *settling) share() int {
	return share.Of(s.most, s.acks.Len(), ackPart)
}
