package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"distmsg/codec"
)

// Taker is a client that accepts whatever is delivered to it, whether it holds the ID or not. So no
// SDK hides what a node delivers wrongly.
type Taker struct {
	nc     net.Conn
	answer chan []codec.Result // to hello, bind and unbind
	ended  chan struct{}

	mu       sync.Mutex
	taken    int               // guarded by mu; deliveries
	late     int               // guarded by mu; those of them for lost IDs
	lost     map[string]bool   // guarded by mu; IDs that were unbound or kicked
	epochs   map[string]uint64 // guarded by mu; of the others
	unbinds  []string          // guarded by mu; the IDs of the current request
	writing  sync.Mutex        // held while writing to nc
	firstErr error             // guarded by mu
}

const takerPatience = 10 * time.Second // for an answer of the node

// Take connects a taker to the node at addr and binds IDs.
func Take(ctx context.Context, addr string, ids ...string) (*Taker, error) {
	dialer := net.Dialer{Timeout: takerPatience}
	nc, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	t := &Taker{nc: nc, answer: make(chan []codec.Result, 1), ended: make(chan struct{}),
		lost: make(map[string]bool), epochs: make(map[string]uint64)}
	go t.read()
	hello := codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version, Features: codec.FeatureMulticast, Agent: []byte("taker")}
	var results []codec.Result
	if _, err = t.ask(codec.AppendHello(nil, &hello)); err == nil {
		results, err = t.ask(codec.AppendBind(nil, 1, codec.PolicyKickOld, withEpochs(ids, nil)))
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, r := range results {
		if r.Code != codec.CodeOK {
			err = fmt.Errorf("bind %q: %v", ids[i], r.Code)
		}
		t.epochs[ids[i]] = r.Epoch
	}
	return t, err
}

// Unbind unbinds IDs.
func (t *Taker) Unbind(ids ...string) error {
	t.mu.Lock()
	t.unbinds = ids
	frame := codec.AppendUnbind(nil, 2, withEpochs(ids, t.epochs))
	t.mu.Unlock()
	results, err := t.ask(frame)
	for i, r := range results {
		if r.Code != codec.CodeOK {
			return fmt.Errorf("unbind %q: %v", ids[i], r.Code)
		}
	}
	return err
}

// Taken returns how many messages have arrived.
func (t *Taker) Taken() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken
}

// Late returns how many messages arrived for IDs that had been unbound or kicked before.
func (t *Taker) Late() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.late
}

// Lost returns how many IDs have been unbound or kicked.
func (t *Taker) Lost() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.lost)
}

// Close closes the connection. It returns an error if the node has broken the protocol.
func (t *Taker) Close() error {
	t.nc.Close()
	<-t.ended
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firstErr
}

func withEpochs(ids []string, epochs map[string]uint64) []codec.IDEpoch {
	list := make([]codec.IDEpoch, len(ids))
	for i, id := range ids {
		list[i] = codec.IDEpoch{ID: []byte(id), Epoch: epochs[id]}
	}
	return list
}

func (t *Taker) write(b []byte) {
	t.writing.Lock()
	defer t.writing.Unlock()
	_, _ = t.nc.Write(b) // the reader notices an error
}

func (t *Taker) ask(frame []byte) ([]codec.Result, error) {
	t.write(frame)
	select {
	case results := <-t.answer:
		return results, nil
	case <-t.ended:
		return nil, errors.New("the connection has ended")
	case <-time.After(takerPatience):
		return nil, fmt.Errorf("no answer in %v", takerPatience)
	}
}

// read handles frames in order until the connection ends.
func (t *Taker) read() {
	defer close(t.ended)
	var in []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := t.nc.Read(chunk)
		if err != nil {
			return
		}
		in = append(in, chunk[:n]...)
		for {
			body, used, err := codec.Split(in, 1<<24)
			if err == nil && used > 0 {
				in = in[used:]
				err = t.frame(body)
			}
			if err != nil {
				t.mu.Lock()
				t.firstErr = err
				t.mu.Unlock()
				return
			}
			if used == 0 {
				break
			}
		}
	}
}

func (t *Taker) frame(body []byte) error {
	kind, err := codec.PeekKind(body)
	if err != nil {
		return err
	}
	switch kind {
	case codec.KindWelcome:
		t.answer <- nil
	case codec.KindDeliver:
		var d codec.Deliver
		if err := codec.DecodeDeliver(body, &d); err != nil {
			return err
		}
		t.take(&d)
	case codec.KindDeliverMany:
		var m codec.DeliverMany
		if err := codec.DecodeDeliverMany(body, kind, len(body), &m); err != nil {
			return err
		}
		for r, ok := m.To.Next(); ok; r, ok = m.To.Next() {
			d := m.Deliver(&r)
			t.take(&d)
		}
	case codec.KindPing:
		nonce, err := codec.DecodePing(body)
		if err != nil {
			return err
		}
		t.write(codec.AppendPong(nil, nonce))
	case codec.KindKick:
		id, _, err := codec.DecodeKick(body)
		if err != nil {
			return err
		}
		t.lose(string(id))
	case codec.KindBound, codec.KindUnbound:
		var f codec.Results
		if err := codec.DecodeResults(body, kind, &f); err != nil {
			return err
		}
		var results []codec.Result
		for r, ok := f.All.Next(); ok; r, ok = f.All.Next() {
			results = append(results, r)
		}
		if kind == codec.KindUnbound {
			t.lose(t.underWay()...)
		}
		t.answer <- results
	case codec.KindError:
		var f codec.ErrorFrame
		if err := codec.DecodeError(body, &f); err != nil {
			return err
		}
		return fmt.Errorf("error frame %v: %s", f.Fault, f.Message)
	}
	return nil
}

// take counts a message and acks it.
func (t *Taker) take(d *codec.Deliver) {
	t.mu.Lock()
	t.taken++
	if t.lost[string(d.To)] {
		t.late++
	}
	t.mu.Unlock()
	if d.Flags&codec.FlagAck != 0 {
		t.write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeAcked}))
	}
}

func (t *Taker) underWay() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unbinds
}

func (t *Taker) lose(ids ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		t.lost[id] = true
	}
}
