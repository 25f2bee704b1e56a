package engine

import "distmsg/codec"

// scratch is what a loop decodes into and encodes from, so that it allocates nothing. What is in it
// is good until the next frame. The loop owns it.
type scratch struct {
	send    codec.Send
	deliver codec.Deliver
	multi   codec.Multicast
	many    codec.DeliverMany
	forward codec.Forward
	ack     codec.Ack
	answer  codec.Answer

	body       []byte // that send was decoded from
	to         []byte // of a send that has waited
	reason     []byte // that names a limit
	token      [codec.MaxToken]byte
	sessionID  [codec.SessionIDLen]byte
	control    []byte   // a control frame for a link, until loopLinks.send has it
	fan        fan      // of the multicast in hand
	iov, spent [][]byte // scratch of output.flush
	plain      []byte   // what tlsWire.heard has decrypted; nil before the first TLS
	records    []byte   // what tlsWire.write has encrypted
}
