package tlsline

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"
	"testing"
)

// crypto/tls has no function for records of other kinds than data. So these tests make records
// themselves, from the keys that a handshake has agreed on (RFC 8446, sections 5.2 and 7).

const (
	typeHandshake = 22
	typeData      = 23
)

// direction is what one side of a connection writes.
type direction struct {
	t      testing.TB
	hash   func() hash.Hash
	keyLen int
	secret []byte
	seq    uint64
}

func (d *direction) expand(label string, n int) []byte {
	d.t.Helper()
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, byte(len(label))), label...)
	out, err := hkdf.Expand(d.hash, d.secret, string(append(info, 0)), n)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// newKeys is what a key update does to one direction.
func (d *direction) newKeys() {
	d.secret, d.seq = d.expand("traffic upd", d.hash().Size()), 0
}

// aead returns the cipher and the nonce of the next record.
func (d *direction) aead() (cipher.AEAD, []byte) {
	d.t.Helper()
	block, err := aes.NewCipher(d.expand("key", d.keyLen))
	if err != nil {
		d.t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		d.t.Fatal(err)
	}
	nonce := d.expand("iv", 12)
	seq := binary.BigEndian.AppendUint64(make([]byte, 4), d.seq)
	for i := range nonce {
		nonce[i] ^= seq[i]
	}
	d.seq++
	return gcm, nonce
}

// seal makes a record with so many bytes of padding.
func (d *direction) seal(kind byte, data []byte, padding int) []byte {
	d.t.Helper()
	gcm, nonce := d.aead()
	inner := append(append(bytes.Clone(data), kind), make([]byte, padding)...)
	header := binary.BigEndian.AppendUint16([]byte{typeData, 3, 3}, uint16(len(inner)+gcm.Overhead()))
	return gcm.Seal(header, nonce, inner, bytes.Clone(header))
}

// open returns what a record holds.
func (d *direction) open(record []byte) (kind byte, data []byte) {
	d.t.Helper()
	gcm, nonce := d.aead()
	inner, err := gcm.Open(nil, nonce, record[headerLen:], record[:headerLen])
	if err != nil {
		d.t.Fatal(err)
	}
	inner = bytes.TrimRight(inner, "\x00")
	return inner[len(inner)-1], inner[:len(inner)-1]
}

// byHand returns a server and both directions of its connection. out is what the Conn writes.
func byHand(t *testing.T) (p *pair, in, out *direction) {
	t.Helper()
	var keys bytes.Buffer
	p = connected(t, false, func(c *tls.Config) { c.MinVersion, c.KeyLogWriter = tls.VersionTLS13, &keys })
	base := direction{t: t, hash: sha256.New, keyLen: 16}
	switch suite := p.line.State().CipherSuite; suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		base.hash, base.keyLen = sha512.New384, 32
	default:
		t.Skipf("this machine does not use AES, but %s", tls.CipherSuiteName(suite))
	}
	toServer, toClient := base, base
	for lines := bufio.NewScanner(&keys); lines.Scan(); {
		label, rest, _ := strings.Cut(lines.Text(), " ")
		_, text, _ := strings.Cut(rest, " ")
		secret, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		switch label {
		case "CLIENT_TRAFFIC_SECRET_0":
			toServer.secret = secret
		case "SERVER_TRAFFIC_SECRET_0":
			toClient.secret = secret
		}
	}
	p.line.Detach(func(b []byte) error {
		p.written = append(p.written, bytes.Clone(b))
		return nil
	})
	return p, &toServer, &toClient
}

// keyUpdate is a handshake message. Its last byte says whether the other side must update its keys,
// too.
func keyUpdate(answer byte) []byte { return []byte{24, 0, 0, 1, answer} }

// reads feeds records, and expects data and no error.
func (p *pair) reads(want string, records ...[]byte) {
	p.t.Helper()
	if got, err := p.feed(bytes.Join(records, nil)); err != nil || string(got) != want {
		p.t.Fatalf("%q, %v, want %q", got, err, want)
	}
}

// After a key update, data with the new keys is read. If the update asks for one in return, the
// server answers and uses new keys, too.
func TestKeyUpdate(t *testing.T) {
	p, in, out := byHand(t)
	for i := range 40 { // more often in a row than without data between
		update := in.seal(typeHandshake, keyUpdate(byte(i%2)), 0)
		in.newKeys()
		p.reads("new keys", update, in.seal(typeData, []byte("new keys"), 0))
		if i%2 == 1 {
			if kind, data := out.open(p.written[0]); kind != typeHandshake || !bytes.Equal(data, keyUpdate(0)) {
				t.Fatalf("the answer is %d %x", kind, data)
			}
			out.newKeys()
			p.written = p.written[1:]
		}
		if err := p.line.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		if kind, data := out.open(p.written[0]); kind != typeData || string(data) != "answer" || len(p.written) != 1 {
			t.Fatalf("%d %q, %d records", kind, data, len(p.written))
		}
		p.written = nil
	}
}

// A key update that comes in parts, each in a record of its own, is one all the same.
func TestKeyUpdateInParts(t *testing.T) {
	p, in, _ := byHand(t)
	for _, b := range keyUpdate(0) {
		p.reads("", in.seal(typeHandshake, []byte{b}, 0))
	}
	in.newKeys()
	p.reads("new keys", in.seal(typeData, []byte("new keys"), 100))
}

// A peer that sends nothing but key updates, empty records, or a message that does not end, is
// refused, and what is held meanwhile is bounded and counted.
func TestNoData(t *testing.T) {
	for name, record := range map[string]func(in *direction) []byte{
		"key updates": func(in *direction) []byte {
			defer in.newKeys()
			return in.seal(typeHandshake, keyUpdate(1), 0)
		},
		"empty records": func(in *direction) []byte { return in.seal(typeData, nil, 0) },
		"padding":       func(in *direction) []byte { return in.seal(typeData, nil, 16_000) },
		"a long message": func(in *direction) []byte {
			return in.seal(typeHandshake, append([]byte{24, 0, 0xff, 0xff}, make([]byte, 8000)...), 0)
		},
		"a long message in small parts": func(in *direction) []byte {
			if in.seq == 0 {
				return in.seal(typeHandshake, []byte{24, 0, 0xff, 0xff}, 0)
			}
			return in.seal(typeHandshake, []byte{0}, 1000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, in, _ := byHand(t)
			for n := range 1000 {
				if _, err := p.feed(record(in)); err != nil {
					t.Logf("after %d records: %v; %d bytes held", n, err, p.line.Held())
					return
				}
				if held := p.line.Held(); held > 256<<10 {
					t.Fatalf("%d bytes are held after %d records", held, n)
				}
			}
			t.Error("it is never refused")
		})
	}
}

// Other messages of a handshake are refused after it.
func TestUnexpectedMessage(t *testing.T) {
	p, in, out := byHand(t)
	finished := []byte{20, 0, 0, 1, 0}
	if got, err := p.feed(in.seal(typeHandshake, finished, 0)); err == nil {
		t.Errorf("%q", got)
	}
	const alert, unexpected = 21, 10
	if kind, data := out.open(p.written[0]); kind != alert || data[1] != unexpected {
		t.Errorf("the peer hears %d %x", kind, data)
	}
}
