package codec

import (
	"encoding/binary"
	"fmt"
	"math"

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

// AppendAckValue appends an ack frame whose reply is v in msgpack, encoded straight into b.
// f.Reply is ignored. On an error b comes back as it was.
func AppendAckValue(b []byte, f *Ack, v any) ([]byte, error) {
	out, start := begin(b, KindAck, 5)
	out = appendBin(out, f.Token)
	out = append(out, byte(f.Code)&0x7f)
	out = appendStr(out, f.Reason)
	out, err := appendBinValue(out, v)
	if err != nil {
		return b, fmt.Errorf("ack.reply: %w", err)
	}
	return end(out, start), nil
}

// appendBinValue appends v's encoding as a bin. The size is known only afterwards, so the head is
// always that of bin 32.
func appendBinValue(b []byte, v any) ([]byte, error) {
	head := len(b)
	w := appender{b: append(b, 0xc6, 0, 0, 0, 0)}
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&w)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	size := len(w.b) - head - 5
	if size > math.MaxUint32 {
		return nil, fmt.Errorf("the value takes %d bytes", size)
	}
	binary.BigEndian.PutUint32(w.b[head+1:], uint32(size))
	return w.b, nil
}

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

// DecodeValue decodes a payload into v, which must be a pointer. The payload is scanned first
// (see Scan), so that hostile bytes can neither exhaust memory nor the stack. What v holds
// afterwards is its own and not a view. The error is an *Error if the scan failed.
func DecodeValue(payload []byte, v any) error {
	if err := Scan(payload, MaxDepth); err != nil {
		return err
	}
	return msgpack.Unmarshal(payload, v)
}
