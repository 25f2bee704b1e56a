package proc

import (
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a DNS server in this process. It answers over UDP on a free port of 127.0.0.1. Its methods
// may be called from any goroutine.
type DNS struct {
	Addr string // host:port

	conn  net.PacketConn
	ended chan struct{}

	mu    sync.Mutex
	zone  Zone     // guarded by mu
	mood  DNSMood  // guarded by mu
	asked []string // guarded by mu; the names, in order
}

// Zone is what a DNS knows. Names are in lower case and end with a dot.
type Zone struct {
	Hosts    map[string][]netip.Addr // A and AAAA records
	Services map[string][]Service    // SRV records
}

// Service is the content of a SRV record.
type Service struct {
	Host string // ends with a dot
	Port uint16
}

// DNSMood says how a DNS behaves.
type DNSMood uint8

// The moods.
const (
	DNSAnswers DNSMood = iota // it answers truly; a name that it does not know does not exist
	DNSEmpty                  // it says that each name exists, and has no records
	DNSFails                  // it answers that it has failed
	DNSSilent                 // it does not answer
)

// StartDNS starts a DNS without names.
func StartDNS() (*DNS, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &DNS{Addr: conn.LocalAddr().String(), conn: conn, ended: make(chan struct{})}
	go d.serve()
	return d, nil
}

// Close ends the server.
func (d *DNS) Close() {
	d.conn.Close()
	<-d.ended
}

// Set replaces what the server knows.
func (d *DNS) Set(zone Zone) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zone = zone
}

// Behave sets the server's mood.
func (d *DNS) Behave(mood DNSMood) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mood = mood
}

// Asked returns how often the server was asked for a name.
func (d *DNS) Asked(name string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, asked := range d.asked {
		if asked == name {
			n++
		}
	}
	return n
}

func (d *DNS) serve() {
	defer close(d.ended)
	buf := make([]byte, 4096)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := d.answer(buf[:n]); reply != nil {
			_, _ = d.conn.WriteTo(reply, from)
		}
	}
}

// answer returns the reply to a question, or nil if there is none.
func (d *DNS) answer(message []byte) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(message)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strings.ToLower(q.Name.String())
	d.asked = append(d.asked, name)
	if d.mood == DNSSilent {
		return nil
	}
	_, host := d.zone.Hosts[name]
	_, service := d.zone.Services[name]
	head = dnsmessage.Header{ID: head.ID, Response: true, Authoritative: true, RecursionAvailable: true}
	switch {
	case d.mood == DNSFails:
		head.RCode = dnsmessage.RCodeServerFailure
	case d.mood == DNSAnswers && !host && !service:
		head.RCode = dnsmessage.RCodeNameError
	}
	reply := dnsmessage.Message{Header: head, Questions: []dnsmessage.Question{q}}
	if d.mood == DNSAnswers {
		reply.Answers = d.records(name, q)
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// records are those that answer a question. The caller holds mu.
func (d *DNS) records(name string, q dnsmessage.Question) (all []dnsmessage.Resource) {
	add := func(body dnsmessage.ResourceBody) {
		all = append(all, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: body})
	}
	for _, ip := range d.zone.Hosts[name] {
		switch {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			add(&dnsmessage.AResource{A: ip.As4()})
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			add(&dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
	for _, s := range d.zone.Services[name] {
		if q.Type == dnsmessage.TypeSRV {
			add(&dnsmessage.SRVResource{Port: s.Port, Target: dnsmessage.MustNewName(s.Host)})
		}
	}
	return all
}
