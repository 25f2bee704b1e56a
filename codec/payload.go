package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// AppendSendValue appends a send frame whose payload is v in msgpack. It encodes v straight into b
// and ignores f.Payload. On an error it returns b unchanged.
func AppendSendValue(b []byte, f *Send, v any) ([]byte, error) {
	out, start := appendSendHead(b, f)
	out, err := appendBinValue(out, v)
	if err != nil {
		return b, fmt.Errorf("send.payload: %w", err)
	}
	return end(appendTrace(out, f.Trace), start), nil
}

// AppendMulticastValue appends a multicast frame whose payload is v in msgpack. It encodes v
// straight into b. It ignores f.Payload, and uses to instead of f.To. On an error it returns b
// unchanged.
func AppendMulticastValue[T []byte | string](b []byte, f *Multicast, to []T, v any) ([]byte, error) {
	out, start := appendMulticastHead(b, f, to)
	out, err := appendBinValue(out, v)
	if err != nil {
		return b, fmt.Errorf("multicast.payload: %w", err)
	}
	return end(appendTrace(out, f.Trace), start), nil
}

// AppendAckValue appends an ack frame whose reply is v in msgpack. It encodes v straight into b and
// ignores f.Reply. On an error it returns b unchanged.
func AppendAckValue(b []byte, f *Ack, v any) ([]byte, error) {
	out, start := appendAckHead(b, f)
	out, err := appendBinValue(out, v)
	if err != nil {
		return b, fmt.Errorf("ack.reply: %w", err)
	}
	return end(out, start), nil
}

// DecodeValue decodes a payload into v, which must be a pointer. It scans the payload first (see
// Scan), so hostile bytes can exhaust neither memory nor the stack: a slice gets at most as many
// elements as the payload has bytes. Afterwards v owns what it holds. Nothing in it is a view.
//
// The error is an *Error if the scan failed. If the decoder panics, DecodeValue returns a
// *PanicError. Bytes can cause a panic: msgpack v5.4.1 panics when a map names a field of interface
// type twice.
func DecodeValue(payload []byte, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Into: fmt.Sprintf("%T", v), Panic: p, Stack: debug.Stack()}
		}
	}()
	d := valueDecoders.Get().(*valueDecoder)
	err = d.decode(payload, v)
	d.r.b = nil
	valueDecoders.Put(d) // not deferred: after a panic the decoder is in an unknown state
	return err
}

// PanicError is a panic of the decoder, or of a method of the value that it decodes into. Its text
// is for those who run the program. Do not send it to the sender of the payload.
type PanicError struct {
	Into  string // the type of the value
	Panic any
	Stack []byte
}

// Error returns the type of the value and the value of the panic.
func (e *PanicError) Error() string {
	return fmt.Sprintf("codec: panic while decoding into a %s: %v", e.Into, e.Panic)
}

// AppendValue appends v in msgpack, as a payload for any frame. On an error it returns b unchanged.
// If v has an encoder of its own that panics, AppendValue panics.
func AppendValue(b []byte, v any) ([]byte, error) {
	e := valueEncoders.Get().(*valueEncoder)
	e.w.b = b
	e.enc.Reset(&e.w)
	err := e.enc.Encode(v)
	out := e.w.b
	e.w.b = nil
	// not deferred: after a panic in v's own encoder, this one is in an unknown state
	valueEncoders.Put(e)
	if err != nil {
		return b, err
	}
	return out, nil
}

// appendBinValue appends v's encoding as a bin. The size is known only after the encoding, so the
// head is always that of a bin 32.
func appendBinValue(b []byte, v any) ([]byte, error) {
	head := len(b)
	b, err := AppendValue(append(b, 0xc6, 0, 0, 0, 0), v)
	if err != nil {
		return nil, err
	}
	size := uint64(len(b) - head - 5)
	if size > math.MaxUint32 {
		return nil, fmt.Errorf("the value takes %d bytes", size)
	}
	binary.BigEndian.PutUint32(b[head+1:], uint32(size))
	return b, nil
}

// valueEncoder is an encoder with the writer that it writes to. The pool keeps both, so that
// neither is allocated again.
type valueEncoder struct {
	w   appender
	enc *msgpack.Encoder
}

var valueEncoders = sync.Pool{New: func() any { return &valueEncoder{enc: msgpack.NewEncoder(nil)} }}

// appender is an io.Writer onto a byte slice.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// WriteByte exists so that the encoder does not allocate a wrapper for it.
func (a *appender) WriteByte(c byte) error {
	a.b = append(a.b, c)
	return nil
}

// valueDecoder is a decoder with the reader that it reads from. The pool keeps both, so that
// neither is allocated again.
type valueDecoder struct {
	r   payloadReader
	dec *msgpack.Decoder
}

var valueDecoders = sync.Pool{New: func() any { return &valueDecoder{dec: msgpack.NewDecoder(nil)} }}

func (d *valueDecoder) decode(payload []byte, v any) error {
	d.r = payloadReader{b: payload, exts: d.r.exts[:0]}
	w := walk{maxDepth: MaxDepth, strictKeys: true, exts: &d.r.exts}
	if err := w.payload(payload); err != nil {
		return err
	}
	d.dec.Reset(&d.r)
	return d.dec.Decode(v)
}

// payloadReader reads a scanned payload and guards the bodies of extensions, because the scan does
// not look into them. When msgpack v5.4.1 expects a map and finds an extension, it skips the head
// of the extension and takes its body for the head of the map. Ten bytes could then make it
// allocate four billion entries. msgpack reads heads with ReadByte. It reads bodies with Read where
// it knows that they are bodies.
type payloadReader struct {
	b    []byte
	off  int
	exts []int // where the bodies of extensions begin, in ascending order
}

var errExtension = errors.New("codec: the payload has an extension where its reader wants another type")

func (r *payloadReader) Read(p []byte) (int, error) {
	if r.off == len(r.b) && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b[r.off:])
	r.off += n
	return n, nil
}

func (r *payloadReader) ReadByte() (byte, error) {
	if r.off == len(r.b) {
		return 0, io.EOF
	}
	if len(r.exts) > 0 {
		if _, inside := slices.BinarySearch(r.exts, r.off); inside {
			return 0, errExtension
		}
	}
	r.off++
	return r.b[r.off-1], nil
}

func (r *payloadReader) UnreadByte() error {
	r.off-- // it may follow only a ReadByte, and only once
	return nil
}
