package tlsline

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"distmsg/internal/certs/certstest"
)

const patience = time.Minute

// pair is a Conn and its peer, which is a tls.Conn on a socket. The test is the loop.
type pair struct {
	t    testing.TB
	line *Conn
	sock net.Conn // of line
	peer *tls.Conn
	fail error // of emit

	written [][]byte // records, in tests that do not need the socket
}

// sockets returns both ends of a TCP connection.
func sockets(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if theirs, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{ours, theirs} {
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return ours, theirs
}

// connected returns a pair after its handshake. The Conn is the server, unless client is set.
func connected(t testing.TB, client bool, change func(*tls.Config)) *pair {
	t.Helper()
	ca := certstest.NewCA(t, "test")
	server := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, certstest.Request{}).TLS}}
	dials := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
	if change != nil {
		change(dials)
	}
	p := &pair{t: t}
	var theirs net.Conn
	p.sock, theirs = sockets(t)
	if client {
		p.line, p.peer = Client(p.sock, Prepare(dials)), tls.Server(theirs, server)
	} else {
		p.line, p.peer = Server(p.sock, Prepare(server), nil), tls.Client(theirs, dials)
	}
	shaken := make(chan error, 1)
	go func() { shaken <- p.peer.Handshake() }()
	if err := p.line.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	p.line.Detach(func(b []byte) error {
		if p.fail == nil {
			_, p.fail = p.sock.Write(b)
		}
		return p.fail
	})
	return p
}

// sealed returns what the peer writes for b on the socket.
func (p *pair) sealed(b []byte) []byte {
	p.t.Helper()
	go func() { _, _ = p.peer.Write(b) }()
	var all []byte
	for got := 0; got < len(b); {
		record := p.record()
		all = append(all, record...)
		got += len(record) - p.overhead()
	}
	return all
}

// overhead is what a record adds to its data.
func (p *pair) overhead() int {
	if p.peer.ConnectionState().Version == tls.VersionTLS13 {
		return headerLen + 1 + 16 // type, tag
	}
	return headerLen + 8 + 16 // nonce, tag
}

// record reads one record from the socket.
func (p *pair) record() []byte {
	p.t.Helper()
	b := make([]byte, headerLen)
	if _, err := io.ReadFull(p.sock, b); err != nil {
		p.t.Fatal(err)
	}
	b = append(b, make([]byte, int(b[3])<<8+int(b[4]))...)
	if _, err := io.ReadFull(p.sock, b[headerLen:]); err != nil {
		p.t.Fatal(err)
	}
	return b
}

// feed gives the Conn input, and returns what it decrypts.
func (p *pair) feed(b []byte) (plain []byte, err error) {
	p.line.Feed(b)
	buf := make([]byte, 1000)
	for {
		n, err := p.line.Read(buf)
		if n == 0 {
			return plain, err
		}
		plain = append(plain, buf[:n]...)
	}
}

// eachVersion runs a test with each version of TLS, as the server and as the client.
func eachVersion(t *testing.T, f func(t *testing.T, p *pair)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, client := range []bool{false, true} {
			name := tls.VersionName(version) + map[bool]string{false: " server", true: " client"}[client]
			t.Run(name, func(t *testing.T) {
				p := connected(t, client, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
				f(t, p)
			})
		}
	}
}

// A record that comes in two parts is read once both are there, wherever it is cut.
func TestCutAnywhere(t *testing.T) {
	eachVersion(t, func(t *testing.T, p *pair) {
		for at, size := 0, 1; at < size; at++ {
			all := p.sealed([]byte("some frames"))
			size = len(all)
			first, err := p.feed(all[:at])
			if err != nil || len(first) > 0 {
				t.Fatalf("%d bytes: %q, %v", at, first, err)
			}
			second, err := p.feed(all[at:])
			if err != nil || string(second) != "some frames" {
				t.Fatalf("cut at %d: %q, %v", at, second, err)
			}
		}
	})
}

// Records that come byte by byte, or several at a time, are all read, in order.
func TestAnySteps(t *testing.T) {
	eachVersion(t, func(t *testing.T, p *pair) {
		for _, step := range []int{1, 2, 5, 100, 1000, 16400, 100_000} {
			want := make([]byte, 50_000+step)
			for i := range want {
				want[i] = byte(i * 7)
			}
			all := p.sealed(want)
			var got []byte
			for len(all) > 0 {
				n := min(step, len(all))
				part, err := p.feed(bytes.Clone(all[:n]))
				if err != nil {
					t.Fatal(err)
				}
				got, all = append(got, part...), all[n:]
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("steps of %d: %d bytes that are not those that were sent", step, len(got))
			}
		}
		if held := p.line.Held(); held < idle || held > 64<<10 {
			t.Errorf("%d bytes are held", held)
		}
	})
}

// What is written arrives, and in as few records as possible.
func TestWrite(t *testing.T) {
	eachVersion(t, func(t *testing.T, p *pair) {
		for _, size := range []int{1, 100, MaxRecord, MaxRecord + 1, 5 * MaxRecord} {
			want := bytes.Repeat([]byte{byte(size)}, size)
			emitted := 0
			p.line.Detach(func(b []byte) error {
				emitted++
				_, err := p.sock.Write(b)
				return err
			})
			if err := p.line.Write(want); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size)
			if _, err := io.ReadFull(p.peer, got); err != nil || !bytes.Equal(got, want) {
				t.Fatal(err)
			}
			if want := (size + MaxRecord - 1) / MaxRecord; emitted != want {
				t.Errorf("%d bytes in %d records, want %d", size, emitted, want)
			}
		}
	})
}

// A write that fails in the middle is final: nothing more is written, and input is still read.
func TestWriteFails(t *testing.T) {
	eachVersion(t, func(t *testing.T, p *pair) {
		broken, emitted := errors.New("broken"), 0
		p.line.Detach(func(b []byte) error {
			if emitted++; emitted == 2 {
				return broken
			}
			return nil
		})
		if err := p.line.Write(make([]byte, 3*MaxRecord)); !errors.Is(err, broken) {
			t.Error(err)
		}
		if err := p.line.Write(make([]byte, 10)); !errors.Is(err, broken) {
			t.Error(err)
		}
		p.line.CloseWrite()
		if emitted != 2 {
			t.Errorf("%d records were emitted", emitted)
		}
		if got, err := p.feed(p.sealed([]byte("still there"))); err != nil || string(got) != "still there" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Each side hears that the other has ended.
func TestEnd(t *testing.T) {
	eachVersion(t, func(t *testing.T, p *pair) {
		p.line.CloseWrite()
		if n, err := p.peer.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the peer reads %d, %v", n, err)
		}
		all := p.sealed([]byte("the last"))
		if err := p.peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := p.feed(append(all, p.record()...))
		if string(got) != "the last" || err != io.EOF {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Input that cannot be decrypted is an error, and the peer hears an alert.
func TestGarbage(t *testing.T) {
	eachVersion(t, func(t *testing.T, p *pair) {
		all := p.sealed([]byte("hello"))
		all[len(all)-1]++
		if got, err := p.feed(all); err == nil || len(got) > 0 {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := p.peer.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Error(err)
		}
		if err := p.line.Write([]byte("more")); err == nil {
			t.Error("there is more after the alert")
		}
	})
}

// pauses notes what a handshake says to its Pauser.
type pauses struct {
	log  []string
	fail int // the call of Resume that returns an error
}

var errNoTurn = errors.New("no turn")

func (p *pauses) Pause() { p.log = append(p.log, "pause") }

func (p *pauses) Resume() error {
	p.log = append(p.log, "resume")
	if p.fail--; p.fail == 0 {
		return errNoTurn
	}
	return nil
}

// A handshake says when it waits for its peer: it has its first turn when the first record is
// complete, and ends its last turn.
func TestPauses(t *testing.T) {
	ca := certstest.NewCA(t, "test")
	server := Prepare(&tls.Config{Certificates: []tls.Certificate{ca.Issue(t, certstest.Request{}).TLS}})
	for fail := range 4 {
		ours, theirs := sockets(t)
		p := &pauses{fail: fail}
		peer := make(chan error, 1)
		go func() {
			peer <- tls.Client(theirs, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}).Handshake()
			theirs.Close()
		}()
		err := Server(ours, server, p).Handshake()
		if fail > 0 {
			if !errors.Is(err, errNoTurn) {
				t.Errorf("no turn %d: %v", fail, err)
			}
			ours.Close()
		}
		<-peer
		last := ""
		for i, said := range p.log {
			if said == last && said == "resume" {
				t.Errorf("call %d: two turns at once: %v", i, p.log)
			}
			last = said
		}
		if p.log[0] != "resume" || fail == 0 && (err != nil || last != "pause") {
			t.Errorf("%v, %v", p.log, err)
		}
	}
}

// Nothing is set in the given configuration, and whatever it chooses for a client has the same
// settings.
func TestPrepare(t *testing.T) {
	if Prepare(nil) != nil {
		t.Error("nil becomes something")
	}
	chosen := &tls.Config{Renegotiation: tls.RenegotiateFreelyAsClient}
	given := &tls.Config{MinVersion: tls.VersionTLS10, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName == "none" {
			return nil, nil
		}
		return chosen, nil
	}}
	c := Prepare(given)
	forClient, err := c.GetConfigForClient(&tls.ClientHelloInfo{})
	if err != nil || forClient == chosen {
		t.Fatal(err)
	}
	for _, c := range []*tls.Config{c, forClient} {
		if c.MinVersion != tls.VersionTLS12 || c.Renegotiation != tls.RenegotiateNever || !c.DynamicRecordSizingDisabled {
			t.Errorf("version %x, renegotiation %v, small records %v", c.MinVersion, c.Renegotiation, !c.DynamicRecordSizingDisabled)
		}
	}
	if given.MinVersion != tls.VersionTLS10 || chosen.DynamicRecordSizingDisabled {
		t.Error("the given configuration was changed")
	}
	if none, err := c.GetConfigForClient(&tls.ClientHelloInfo{ServerName: "none"}); none != nil || err != nil {
		t.Error(none, err)
	}
}

func TestCheck(t *testing.T) {
	certs := []tls.Certificate{{}}
	for _, test := range []struct {
		config *tls.Config
		want   string
	}{
		{&tls.Config{Certificates: certs}, ""},
		{&tls.Config{}, "has no certificate"},
		{&tls.Config{Certificates: certs, MaxVersion: tls.VersionTLS11}, "no version from TLS 1.2 on"},
	} {
		got := ""
		if err := Check(test.config); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// Without input, crypto/tls gets the error that it takes for a time-out, and can go on later.
func TestNoInput(t *testing.T) {
	var l line
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
