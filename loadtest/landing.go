package loadtest

import (
	"context"
	"errors"
	"time"
)

// Two causes end the wait for messages in flight. errSilent: nothing has landed for the whole
// grace. errPatience: the longest wait is over, although outcomes still come in.
var (
	errSilent   = errors.New("nothing arrived for the whole grace time")
	errPatience = errors.New("the longest wait is over")
)

// land waits for the messages in flight, and for everything that the nodes have still to say.
func (r *run) land(ctx context.Context) {
	stopped := time.Now()
	heard, end := r.whileHeard(ctx)
	defer end()
	select {
	case <-r.t.Landed:
	case <-heard.Done(): // what has not landed is missing, or not answered yet: see Ledger.Close
	}
	r.landing = time.Since(stopped)
	if err := r.d.Settle(heard); err != nil {
		r.d.Do(func() { r.t.Note("a node did not answer the last ping") })
	}
	r.impatient = errors.Is(context.Cause(heard), errPatience)
}

// whileHeard returns a context that ends when nothing has landed for as long as the grace. An
// overload needs time to land, and while its outcomes come in, the nodes have not gone silent. The
// context ends in any case when the longest wait is over. It also ends a grace after ctx.
func (r *run) whileHeard(ctx context.Context) (heard context.Context, end func()) {
	heard, cancel := context.WithCancelCause(context.Background())
	r.helpers.Go(func() {
		grace, patience := time.NewTimer(r.cfg.Grace), time.NewTimer(r.cfg.Patience)
		defer grace.Stop()
		defer patience.Stop()
		tick := time.NewTicker(max(time.Millisecond, min(r.cfg.Grace/8, time.Second/4)))
		defer tick.Stop()
		over := ctx.Done()
		var last uint64
		for {
			select {
			case <-heard.Done():
				return
			case <-grace.C:
				if now := r.heard(); now == last { // this process may have been held up, too
					cancel(errSilent)
					return
				}
			case <-patience.C:
				select {
				case <-grace.C:
					cancel(errSilent)
				default:
					cancel(errPatience)
				}
				return
			case <-over:
				over = nil
				patience.Reset(min(r.cfg.Grace, r.cfg.Patience))
				continue
			case <-tick.C:
			}
			if now := r.heard(); now != last {
				last = now
				grace.Reset(r.cfg.Grace)
			}
		}
	})
	return heard, func() { cancel(nil) }
}

// heard returns Ledger.Heard.
func (r *run) heard() (n uint64) {
	r.d.Do(func() { n = r.t.Ledger.Heard() })
	return n
}
