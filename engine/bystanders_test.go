package engine

import (
	"distmsg/codec"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// bystanders are two clients that exchange acked messages in both directions, and fail the test if
// anything else happens.
type bystanders struct {
	t     testing.TB
	stop  chan struct{}
	ended sync.WaitGroup

	mu     sync.Mutex
	rounds [2]int // guarded by mu
	err    error  // guarded by mu
}

// watchOver starts a pair of bystanders. The test's cleanup checks them a last time.
func (n *node) watchOver() *bystanders {
	n.t.Helper()
	b := &bystanders{t: n.t, stop: make(chan struct{})}
	names := [2]string{"bystander-0", "bystander-1"}
	pair := [2]*client{n.join(names[0]), n.join(names[1])}
	for i := range pair {
		b.ended.Go(func() { b.run(pair[i], i, names[i], names[1-i]) })
	}
	n.t.Cleanup(func() {
		b.unharmed()
		close(b.stop)
		for _, c := range pair {
			c.nc.Close()
		}
		b.ended.Wait()
	})
	return b
}

// run answers messages and keeps one message of its own under way.
func (b *bystanders) run(c *client, i int, from, to string) {
	pace := time.NewTicker(bystanderPace)
	defer pace.Stop()
	seq := uint64(1)
	c.nc.SetWriteDeadline(time.Time{}) // reading has one
	_, err := c.nc.Write(sendFrame(seq, from, to, "still here", codec.FlagAck, 60_000))
	for err == nil {
		var f frame
		if f, err = c.read(); err != nil {
			break
		}
		switch f.kind {
		case codec.KindDeliver:
			var d codec.Deliver
			if err = codec.DecodeDeliver(f.body, &d); err == nil {
				_, err = c.nc.Write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeAcked}))
			}
		case codec.KindOutcome:
			var o codec.Outcome
			if err = codec.DecodeOutcome(f.body, &o); err == nil && (o.Code != codec.CodeAcked || o.Seq != seq) {
				err = fmt.Errorf("outcome %s, want %d acked", describe(f), seq)
			}
			b.mu.Lock()
			b.rounds[i]++
			b.mu.Unlock()
			<-pace.C
			seq++
			if err == nil {
				_, err = c.nc.Write(sendFrame(seq, from, to, "still here", codec.FlagAck, 60_000))
			}
		case codec.KindPing:
			var nonce uint64
			nonce, err = codec.DecodePing(f.body)
			_, _ = c.nc.Write(codec.AppendPong(nil, nonce))
		default:
			err = fmt.Errorf("%v: %s", f.kind, describe(f))
		}
	}
	select {
	case <-b.stop:
	default:
		b.mu.Lock()
		b.err = errors.Join(b.err, fmt.Errorf("%s: %w", from, err))
		b.mu.Unlock()
	}
}

// unharmed waits until both have done a few more rounds.
func (b *bystanders) unharmed() {
	b.t.Helper()
	before, err := b.look()
	for deadline := time.Now().Add(patience); ; time.Sleep(bystanderPace) {
		now, e := b.look()
		if err = errors.Join(err, e); err != nil {
			b.t.Errorf("bystanders: %v", err)
			return
		}
		if now[0] >= before[0]+2 && now[1] >= before[1]+2 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Errorf("bystanders are stuck: %v, then %v", before, now)
			return
		}
	}
}

func (b *bystanders) look() ([2]int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.err
	b.err = nil
	return b.rounds, err
}
