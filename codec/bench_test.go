package codec

import (
	"bytes"
	"slices"
	"testing"
)

// BenchmarkRelay is what a node does with the bytes of one message: split, read the kind, decode
// the send, encode the deliver.
func BenchmarkRelay(b *testing.B) {
	for _, c := range []struct {
		name    string
		payload int
	}{{"128", 128}, {"4096", 4096}} {
		b.Run(c.name, func(b *testing.B) {
			send := AppendSend(nil, &Send{Seq: 1 << 20, To: []byte("user-000123"), From: []byte("user-000456"), TTL: 5000, Flags: FlagAck, Payload: make([]byte, c.payload)})
			token := make([]byte, 8)
			out := make([]byte, 0, len(send)+FrameOverhead)
			b.SetBytes(int64(len(send)))
			b.ReportAllocs()
			for b.Loop() {
				body, _, err := Split(send, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				if kind, err := PeekKind(body); kind != KindSend || err != nil {
					b.Fatal(kind, err)
				}
				var f Send
				if err := DecodeSend(body, &f); err != nil {
					b.Fatal(err)
				}
				out = AppendDeliver(out[:0], &Deliver{Token: token, To: f.To, From: f.From, TTL: f.TTL, Flags: f.Flags, Epoch: 1 << 50, Payload: f.Payload})
			}
		})
	}
}

// BenchmarkDecode reads the example of every kind.
func BenchmarkDecode(b *testing.B) {
	decoders := map[Kind]func(body []byte) error{
		KindSend:    func(body []byte) error { var f Send; return DecodeSend(body, &f) },
		KindDeliver: func(body []byte) error { var f Deliver; return DecodeDeliver(body, &f) },
		KindAck:     func(body []byte) error { var f Ack; return DecodeAck(body, &f) },
		KindOutcome: func(body []byte) error { var f Outcome; return DecodeOutcome(body, &f) },
		KindBind:    func(body []byte) error { var f Bind; return DecodeBind(body, 1024, &f) },
		KindHello:   func(body []byte) error { var f Hello; return DecodeHello(body, &f) },
	}
	for _, l := range layouts {
		decode, ok := decoders[l.kind]
		if !ok {
			continue
		}
		b.Run(l.kind.String(), func(b *testing.B) {
			body := bodyOf(example(l.kind))
			b.ReportAllocs()
			for b.Loop() {
				if err := decode(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkList1024 reads a long list of each kind as a node or a client does: once to check it,
// once to use it.
func BenchmarkList1024(b *testing.B) {
	const n = 1024
	id, token := bytes.Repeat([]byte{'a'}, 23), make([]byte, 12)
	pairs := slices.Repeat([]IDEpoch{{id, 1 << 50}}, n)
	results := slices.Repeat([]Result{{CodeOK, 1 << 50}}, n)
	changes := slices.Repeat([]Change{{id, CodeOK, 1 << 50}}, n)
	to := slices.Repeat([]Recipient{{Token: token, To: id, Epoch: 1 << 50}}, n)
	outcomes := bytes.Repeat(AppendOneOutcome(nil, &Outcome{Seq: 1 << 40, Code: CodeAcked}), n)
	many := DeliverMany{From: id, Payload: token}
	for _, c := range []struct {
		name  string
		frame []byte
		read  func(body []byte) (uint64, error)
	}{
		{"ids", AppendBind(nil, 1, PolicyKickOld, pairs), func(body []byte) (uint64, error) {
			var f Bind
			err := DecodeBind(body, n, &f)
			return walkIDs(f.IDs), err
		}},
		{"results", AppendResults(nil, KindBound, 1, results), func(body []byte) (sum uint64, err error) {
			var f Results
			err = DecodeResults(body, KindBound, &f)
			for v, ok := f.All.Next(); ok; v, ok = f.All.Next() {
				sum += v.Epoch
			}
			return sum, err
		}},
		{"changes", AppendChanged(nil, changes), func(body []byte) (sum uint64, err error) {
			all, err := DecodeChanged(body)
			for v, ok := all.Next(); ok; v, ok = all.Next() {
				sum += v.Epoch
			}
			return sum, err
		}},
		{"recipients", AppendDeliverMany(nil, KindDeliverMany, &many, to), func(body []byte) (uint64, error) {
			var f DeliverMany
			err := DecodeDeliverMany(body, KindDeliverMany, n, &f)
			return walkRecipients(f.To), err
		}},
		{"outcomes", AppendOutcomes(nil, n, outcomes), func(body []byte) (sum uint64, err error) {
			all, err := DecodeOutcomes(body)
			for v, ok := all.Next(); ok; v, ok = all.Next() {
				sum += v.Seq
			}
			return sum, err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			body := bodyOf(c.frame)
			b.ReportAllocs()
			for b.Loop() {
				if sum, err := c.read(body); sum == 0 || err != nil {
					b.Fatal(sum, err)
				}
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	payload := []byte("\x9a\x81\xa1a\x01\xa3abc\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x93\x01\x02\x03\xc0\xc0\xc0\xc0\xc0\xc0")
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if err := Scan(payload, MaxDepth); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSendValue(b *testing.B) {
	out := make([]byte, 0, 4096)
	v := someOrder()
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, err = AppendSendValue(out[:0], &Send{Seq: 1, To: []byte("bob"), From: []byte("alice")}, &v); err != nil {
			b.Fatal(err)
		}
	}
}
