package drive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"distmsg/codec"
	"distmsg/loadtest/internal/traffic"
)

// nats speaks the NATS client protocol
// (https://docs.nats.io/reference/reference-protocols/nats-protocol), for comparison. An ID is a
// subject. With ack, a message is a request. Its reply subject is below the connection's own inbox
// and ends in the number of the message. The receiver's empty reply is the ack. NATS reports no
// failures: a message that does not arrive is missing.
//
// A message to all others is one to a subject that all connections have. The server leaves the
// sender out.
type nats struct {
	leg   *leg
	t     *traffic.Traffic
	index int
	beats int    // beats whose pongs have not come
	inbox []byte // "_INBOX.run.conn."
	all   []byte // the subject of all, if messages go there
}

func natsKind() Kind {
	return Kind{Name: "nats", Protocol: "NATS", Server: "a nats-server", Broadcast: true,
		make: func(t *traffic.Traffic, cfg *Config) Driver {
			w := newWire(t, cfg, newNATS)
			w.greets = true
			return w
		}}
}

func newNATS(c *wireConn) func(*leg) protocol {
	inbox := fmt.Appendf(nil, "_INBOX.%016x.%d.", c.wire.t.Ledger.Run(), c.index)
	all := everybody(c.wire.t)
	return func(l *leg) protocol {
		return &nats{leg: l, t: c.wire.t, index: c.index, inbox: inbox, all: all}
	}
}

// inboxSID is the subscription ID of the inbox. The subscription IDs of the IDs count from 1.
const inboxSID = "0"

func (n *nats) open(b []byte) []byte {
	subjects, echo := n.t.IDsOf(n.index), true
	if n.all != nil {
		subjects, echo = [][]byte{n.all}, false
	}
	b = fmt.Appendf(b, `CONNECT {"verbose":false,"pedantic":false,"echo":%v,"lang":"go","name":"distmsg-loadtest","version":"1","protocol":1}`+"\r\n", echo)
	for i, id := range subjects {
		b = fmt.Appendf(b, "SUB %s %d\r\n", id, i+1)
	}
	if n.t.Acks {
		b = fmt.Appendf(b, "SUB %s* %s\r\n", n.inbox, inboxSID)
	}
	return n.ping(b) // the pong says that the server has handled all of this
}

func (n *nats) send(b []byte, m *traffic.Message) ([]byte, bool) {
	b = append(b, "PUB "...)
	if n.all != nil {
		b = append(b, n.all...)
	} else {
		b = append(b, n.t.IDs[m.To]...)
	}
	b = append(b, ' ')
	if n.t.Acks {
		b = append(b, n.inbox...)
		b = strconv.AppendUint(b, m.Seq, 10)
		b = append(b, ' ')
	}
	b = strconv.AppendInt(b, int64(len(m.Payload)), 10)
	b = append(b, "\r\n"...)
	b = append(b, m.Payload...)
	return append(b, "\r\n"...), true
}

func (n *nats) ping(b []byte) []byte { return append(b, "PING\r\n"...) }

func (n *nats) beat(b []byte) []byte {
	// Pongs come in the order of the pings. Before settle, only beats send pings.
	n.beats++
	return n.ping(b)
}

func (n *nats) leave(b []byte) []byte { return b }

func (n *nats) bye(b []byte) []byte { return b }

func (n *nats) parse(b []byte) (used int, err error) {
	for {
		end := bytes.IndexByte(b[used:], '\n')
		if end < 0 {
			return used, nil
		}
		line := bytes.TrimSuffix(b[used:used+end], []byte("\r"))
		rest := b[used+end+1:]
		taken := 0
		if bytes.HasPrefix(line, []byte("MSG ")) {
			if taken, err = n.msg(line[len("MSG "):], rest); taken == 0 {
				return used, err
			}
		} else if err := n.control(line); err != nil {
			return used, err
		}
		used += end + 1 + taken
	}
}

var errNATSMsg = errors.New("bad MSG")

// msg handles a message. args are "subject sid [reply-to] size", and rest begins with the payload.
// It returns how many bytes of rest it consumed. It returns 0 if the payload is not complete.
func (n *nats) msg(args, rest []byte) (taken int, err error) {
	subject, args, _ := bytes.Cut(args, []byte(" "))
	sid, args, _ := bytes.Cut(args, []byte(" "))
	reply, digits, found := bytes.Cut(args, []byte(" "))
	if !found {
		reply, digits = nil, reply
	}
	size, ok := decimal(digits)
	if !ok || size > maxFrame {
		return 0, errNATSMsg
	}
	taken = int(size) + len("\r\n")
	if len(rest) < taken {
		return 0, nil
	}
	if string(sid) == inboxSID {
		seq, ok := decimal(subject[min(len(n.inbox), len(subject)):])
		if !ok {
			return 0, errNATSMsg
		}
		n.leg.ended()
		n.t.Outcome(n.index, seq, codec.CodeAcked)
		return taken, nil
	}
	if n.all != nil {
		subject = n.t.IDsOf(n.index)[0]
	}
	if n.t.Deliver(n.index, subject, nil, rest[:size]) && len(reply) > 0 {
		b := append(n.leg.pending, "PUB "...)
		b = append(b, reply...)
		n.leg.pending = append(b, " 0\r\n\r\n"...)
		n.leg.touch()
	}
	return taken, nil
}

// control handles every line that is not a message.
func (n *nats) control(line []byte) error {
	switch word, args, _ := bytes.Cut(line, []byte(" ")); string(word) {
	case "PING":
		n.leg.pending = append(n.leg.pending, "PONG\r\n"...)
		n.leg.touch()
	case "PONG":
		if n.leg.conn.cur != n.leg {
			n.leg.up(n.leg.addr, traffic.Unlimited)
		} else if n.beats > 0 {
			n.beats--
		} else {
			n.leg.ponged()
		}
	case "INFO":
		return n.info(args)
	case "+OK":
	case "-ERR":
		n.leg.fail(string(line), "")
	default:
		return fmt.Errorf("%.40q is not NATS", line)
	}
	return nil
}

func (n *nats) info(args []byte) error {
	var info struct {
		Version      string `json:"version"`
		MaxPayload   int    `json:"max_payload"`
		LDM          bool   `json:"ldm"` // lame duck mode: the server is leaving
		AuthRequired bool   `json:"auth_required"`
		TLSRequired  bool   `json:"tls_required"`
	}
	if err := json.Unmarshal(args, &info); err != nil {
		return fmt.Errorf("INFO: %w", err)
	}
	if info.AuthRequired {
		return errors.New("the server requires credentials")
	}
	if info.TLSRequired && n.leg.tunnel == nil {
		return errors.New("the server wants TLS: add --tls")
	}
	if size := n.t.Longest(); size > info.MaxPayload {
		return fmt.Errorf("payload is %d bytes, the server allows %d", size, info.MaxPayload)
	}
	n.t.Server = "nats-server " + info.Version
	if info.LDM {
		n.t.Drains++
	}
	return nil
}

// decimal parses a number of up to 19 digits and nothing else.
func decimal(b []byte) (v uint64, ok bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = 10*v + uint64(c-'0')
	}
	return v, true
}
