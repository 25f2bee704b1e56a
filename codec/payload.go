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

// AppendSendValue appends a send frame whose payload is v in msgpack, encoded straight into b.
// f.Payload is ignored. On an error b comes back as it was.
func AppendSendValue(b []byte, f *Send, v any) ([]byte, error) {
	out, start := appendSendHead(b, f)
	out, err := appendBinValue(out, v)
	if err != nil {
		return b, fmt.Errorf("send.payload: %w", err)
	}
	return end(out, start), nil
}

// AppendMulticastValue appends a multicast frame whose payload is v in msgpack, encoded straight
// into b. f.Payload is ignored, and to stands for f.To. On an error b comes back as it was.
func AppendMulticastValue[T []byte | string](b []byte, f *Multicast, to []T, v any) ([]byte, error) {
	out, start := appendMulticastHead(b, f, to)
	out, err := appendBinValue(out, v)
	if err != nil {
		return b, fmt.Errorf("multicast.payload: %w", err)
	}
	return end(out, start), nil
}

// AppendAckValue appends an ack frame whose reply is v in msgpack, encoded straight into b.
// f.Reply is ignored. On an error b comes back as it was.
func AppendAckValue(b []byte, f *Ack, v any) ([]byte, error) {
	out, start := appendAckHead(b, f)
	out, err := appendBinValue(out, v)
	if err != nil {
		return b, fmt.Errorf("ack.reply: %w", err)
	}
	return end(out, start), nil
}

// DecodeValue decodes a payload into v, which must be a pointer. The payload is scanned first (see
// Scan), so that hostile bytes can exhaust neither memory nor the stack: a slice gets at most as
// many elements as the payload has bytes. What v holds afterwards is its own and not a view.
//
// The error is an *Error if the scan failed. A panic while decoding comes back as a *PanicError,
// because bytes can cause one: msgpack v5.4.1 panics when a map names a field of interface type
// twice.
func DecodeValue(payload []byte, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Into: fmt.Sprintf("%T", v), Panic: p, Stack: debug.Stack()}
		}
	}()
	d := valueDecoders.Get().(*valueDecoder)
	err = d.decode(payload, v)
	d.r.b = nil
	valueDecoders.Put(d) // not deferred: after a panic it is in no good state
	return err
}

// PanicError is a panic of the decoder, or of a method of the value that is decoded into. Its text
// is for those who run the program, and not for whoever sent the payload.
type PanicError struct {
	Into  string // the type of the value
	Panic any
	Stack []byte
}

// Error names the type and what the decoder panicked with.
func (e *PanicError) Error() string {
	return fmt.Sprintf("codec: panic while decoding into a %s: %v", e.Into, e.Panic)
}

// AppendValue appends v in msgpack, as a payload for whatever frame. On an error b comes back as it
// was. If an encoder of v's own panics, AppendValue panics.
func AppendValue(b []byte, v any) ([]byte, error) {
	e := valueEncoders.Get().(*valueEncoder)
	e.w.b = b
	e.enc.Reset(&e.w)
	err := e.enc.Encode(v)
	out := e.w.b
	e.w.b = nil
	// not deferred: after a panic in an encoder of v's own it is in no good state
	valueEncoders.Put(e)
	if err != nil {
		return b, err
	}
	return out, nil
}

// appendBinValue appends v's encoding as a bin. The size is known only afterwards, so the head is
// always that of bin 32.
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

// valueEncoder is an encoder together with what it writes to, so that neither is allocated anew.
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

// WriteByte saves the encoder a wrapper of its own.
func (a *appender) WriteByte(c byte) error {
	a.b = append(a.b, c)
	return nil
}

// valueDecoder is a decoder together with what it reads from, so that neither is allocated anew.
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

// payloadReader reads a scanned payload and guards the bodies of extensions, which the scan has
// not looked into. Where it wants a map, msgpack v5.4.1 skips the head of an extension and takes
// the body for the map's: ten bytes would make room for four billion entries. It reads heads
// with ReadByte, but bodies, where it knows that they are some, with Read.
type payloadReader struct {
	b    []byte
	off  int
	exts []int // where bodies of extensions begin, ascending
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
	r.off-- // only after a ReadByte, and once
	return nil
}
