package drive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"distmsg/codec"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/traffic"
)

// redis speaks RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec/) to Redis's
// pub/sub, for comparison. With RESP3, one connection may publish and subscribe. An ID is a
// channel. With ack, each connection has one more channel, for its acks. The payload then begins
// with the number of the sending connection (4 bytes) and the number of the message (8 bytes); the
// ack is the number of the message. Redis reports no failures: a message that does not arrive is
// missing.
//
// A message to all others goes to a channel to which all connections subscribe. The sender also
// gets it, and the driver ignores that copy.
type redis struct {
	leg   *leg
	t     *traffic.Traffic
	index int
	beats int      // beats whose pongs have not come
	acks  [][]byte // by connection: its channel for acks
	all   []byte   // the channel of all, if messages go there
	head  [redisHead]byte
}

func redisKind() Kind {
	return Kind{Name: "redis", Protocol: "RESP3", Server: "a redis-server", Broadcast: true,
		make: func(t *traffic.Traffic, cfg *Config) Driver {
			acks := make([][]byte, t.Conns())
			for i := range acks {
				acks[i] = fmt.Appendf(nil, "lt-ack-%08x-%d", uint32(t.Ledger.Run()), i)
			}
			return newWire(t, cfg, newRedis(acks))
		}}
}

func newRedis(acks [][]byte) func(c *wireConn) func(*leg) protocol {
	return func(c *wireConn) func(*leg) protocol {
		all := everybody(c.wire.t)
		return func(l *leg) protocol { return &redis{leg: l, t: c.wire.t, index: c.index, acks: acks, all: all} }
	}
}

// redisHead is the length of what precedes the payload of a message with ack.
const redisHead = 4 + 8

var errRedis = errors.New("bad push from Redis")

func (r *redis) open(b []byte) []byte {
	b = append(b, "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"...)
	channels := r.t.IDsOf(r.index)
	if r.all != nil {
		channels = [][]byte{r.all}
	}
	if r.t.Acks {
		channels = append(channels[:len(channels):len(channels)], r.acks[r.index])
	}
	b = fmt.Appendf(b, "*%d\r\n$9\r\nSUBSCRIBE\r\n", 1+len(channels))
	for _, c := range channels {
		b = append(appendBulk(b, len(c)), c...)
		b = append(b, "\r\n"...)
	}
	return r.ping(b) // the pong says that the server has handled all of this
}

// appendPublish appends a PUBLISH of head and payload together.
func appendPublish(b, channel, head, payload []byte) []byte {
	b = append(b, "*3\r\n$7\r\nPUBLISH\r\n"...)
	b = append(appendBulk(b, len(channel)), channel...)
	b = append(b, "\r\n"...)
	b = append(appendBulk(b, len(head)+len(payload)), head...)
	b = append(b, payload...)
	return append(b, "\r\n"...)
}

// appendBulk appends the beginning of a bulk string.
func appendBulk(b []byte, size int) []byte {
	b = strconv.AppendInt(append(b, '$'), int64(size), 10)
	return append(b, "\r\n"...)
}

func (r *redis) send(b []byte, m *traffic.Message) ([]byte, bool) {
	switch {
	case r.all != nil:
		return appendPublish(b, r.all, nil, m.Payload), true
	case !r.t.Acks:
		return appendPublish(b, r.t.IDs[m.To], nil, m.Payload), true
	}
	binary.LittleEndian.PutUint32(r.head[:], uint32(r.index))
	binary.LittleEndian.PutUint64(r.head[4:], m.Seq)
	return appendPublish(b, r.t.IDs[m.To], r.head[:], m.Payload), true
}

func (r *redis) ping(b []byte) []byte { return append(b, "*1\r\n$4\r\nPING\r\n"...) }

func (r *redis) beat(b []byte) []byte {
	// Pongs come in the order of the pings. Before settle, only beats send pings.
	r.beats++
	return r.ping(b)
}

func (r *redis) leave(b []byte) []byte { return b }

func (r *redis) bye(b []byte) []byte { return b }

// A message begins so. Two bulk strings follow: the channel and the payload.
const redisMessage = ">3\r\n$7\r\nmessage\r\n"

func (r *redis) parse(b []byte) (used int, err error) {
	for used < len(b) {
		rest := b[used:]
		if len(rest) > len(redisMessage) && string(rest[:len(redisMessage)]) == redisMessage {
			n := len(redisMessage)
			channel, taken, err := bulk(rest[n:])
			if taken == 0 {
				return used, err
			}
			n += taken
			payload, taken, err := bulk(rest[n:])
			if taken == 0 {
				return used, err
			}
			if err := r.message(channel, payload); err != nil {
				return used, err
			}
			used += n + taken
			continue
		}
		n, err := replyLen(rest, 0)
		if n == 0 {
			return used, err
		}
		if err := r.reply(rest[:n]); err != nil {
			return used, err
		}
		used += n
	}
	return used, nil
}

// bulk reads a bulk string. It returns 0 if the string is not complete.
func bulk(b []byte) (text []byte, used int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return nil, 0, nil
	}
	if end < 3 || b[0] != '$' {
		return nil, 0, errRedis
	}
	size, ok := decimal(b[1 : end-1])
	if !ok || size > maxFrame {
		return nil, 0, errRedis
	}
	used = end + 1 + int(size) + len("\r\n")
	if len(b) < used {
		return nil, 0, nil
	}
	return b[end+1 : used-2], used, nil
}

// message handles a message to one of the connection's channels.
func (r *redis) message(channel, payload []byte) error {
	if r.all != nil {
		if sender, ok := ledger.SenderOf(payload); ok && int(sender) == r.index {
			return nil // a message of one's own
		}
		channel = r.t.IDsOf(r.index)[0]
	}
	if !r.t.Acks {
		r.t.Deliver(r.index, channel, nil, payload)
		return nil
	}
	if bytes.Equal(channel, r.acks[r.index]) {
		if len(payload) != 8 {
			return errRedis
		}
		r.leg.ended()
		r.t.Outcome(r.index, binary.LittleEndian.Uint64(payload), codec.CodeAcked)
		return nil
	}
	if len(payload) < redisHead {
		return errRedis
	}
	sender := binary.LittleEndian.Uint32(payload)
	if r.t.Deliver(r.index, channel, nil, payload[redisHead:]) && int(sender) < len(r.acks) {
		r.leg.pending = appendPublish(r.leg.pending, r.acks[sender], nil, payload[4:redisHead])
		r.leg.touch()
	}
	return nil
}

// reply handles everything that is not a message.
func (r *redis) reply(b []byte) error {
	switch line, _, _ := bytes.Cut(b, []byte("\r\n")); {
	case b[0] == '-':
		r.leg.fail(string(line), "")
	case b[0] == '%': // of HELLO
		r.t.Server = "redis-server " + versionIn(b)
	case string(line) == ":0":
		r.t.Note("a message was published to nobody")
	case string(line) != "+PONG": // of SUBSCRIBE, and a PUBLISH that somebody got
	case r.leg.conn.cur != r.leg:
		r.leg.up(r.leg.addr, traffic.Unlimited)
	case r.beats > 0:
		r.beats--
	default:
		r.leg.ponged()
	}
	return nil
}

// versionIn returns the version in the answer to HELLO.
func versionIn(hello []byte) string {
	_, rest, _ := bytes.Cut(hello, []byte("$7\r\nversion\r\n"))
	version, _, _ := bulk(rest)
	return string(version)
}

// maxDepth is how deep the answers to our commands may be nested.
const maxDepth = 4

// replyLen returns the length of a RESP3 value, or 0 if it is not complete.
func replyLen(b []byte, depth int) (int, error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return 0, nil
	}
	if end < 2 || depth > maxDepth {
		return 0, fmt.Errorf("%.40q is not Redis", b)
	}
	parts := uint64(1)
	switch b[0] {
	case '+', '-', ':', '_', '#', ',', '(':
		return end + 1, nil
	case '$':
		_, n, err := bulk(b)
		return n, err
	case '%':
		parts = 2
	case '*', '~', '>':
	default:
		return 0, fmt.Errorf("%.40q is not Redis", b)
	}
	count, ok := decimal(b[1 : end-1])
	if !ok || count > 1<<16 {
		return 0, fmt.Errorf("%.40q is not Redis", b)
	}
	used := end + 1
	for range parts * count {
		n, err := replyLen(b[used:], depth+1)
		if n == 0 {
			return 0, err
		}
		used += n
	}
	return used, nil
}
