// Package codec says what the bytes on a distmsg connection mean: frame kinds, outcome codes,
// faults and limits, and how each frame is read and written. It does no I/O.
//
// A frame is a big-endian uint32 length and one msgpack array of that many bytes, whose first
// element is the Kind. Decoding is a pure function over bytes,
//
//	body, n, err := codec.Split(buf, limit)   // n == 0: not all of it is here yet
//	kind, err := codec.PeekKind(body)
//	var send codec.Send
//	err = codec.DecodeSend(body, &send)       // the fields are views into buf
//
// and encoding appends to a buffer of the caller's:
//
//	buf = codec.AppendSend(buf, &codec.Send{Seq: 1, To: to, From: from, Payload: p})
//
// If a decoder returns an error, the content of its argument is undefined. Encoders trust their
// caller: an ID, token or session of a wrong length yields a frame that decoders refuse.
//
// Nothing here allocates on the path of a message, except the fault of a bad frame. Any goroutine
// may call all functions. The caller must synchronise access to the buffers. The protocol itself
// (who may send what, and when) is described in docs/protocol.md, that between nodes in
// docs/peer-protocol.md.
package codec
