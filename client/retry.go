package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// RetryOptions say when and how often Retry tries again. A zero field means the default that its
// comment names.
type RetryOptions struct {
	// Pause bounds the first pause. The bound doubles with each try. The pause is a random part of
	// it. Default: 50 ms.
	Pause time.Duration
	// MaxPause is the greatest bound of a pause. Default: 2 s.
	MaxPause time.Duration
	// Tries is the maximum number of calls. Default: as often as the context allows.
	Tries int
	// Idempotent says that two copies do no harm. Retry then also tries again if nobody knows
	// whether the message was delivered (timeout, lost).
	Idempotent bool
}

// Retry calls try until it succeeds or ctx ends, and pauses between calls. It also ends if the
// error says that a retry is unsafe (not [Error.SafeToRetry]) or does not help soon (not
// [Error.Temporary]). So an offline receiver (no_route) ends it, and so does an error that wraps no
// *Error. After an *IDError, it tries again only if all of its IDs allow that. Give ctx a deadline,
// and each try a shorter one of its own (Message.TTL). Otherwise the first try may take all the
// time:
//
//	err := client.Retry(ctx, client.RetryOptions{}, func(ctx context.Context) error {
//		_, err := session.Send(ctx, client.Message{To: "bob", From: "alice", Payload: p, TTL: time.Second})
//		return err
//	})
//
// After an overflow that names a limit of this client, the pause is longer by the time that the
// node asks for. Retry returns nil or the error of the last try. If ctx ended before another try,
// the error also wraps ctx's. If ctx has ended before the call, Retry does not call try and returns
// an error that wraps ctx's. Any goroutine may call Retry, and Retry calls try on that goroutine.
func Retry(ctx context.Context, o RetryOptions, try func(ctx context.Context) error) error {
	setDefault(&o.Pause, minBackoff)
	setDefault(&o.MaxPause, defaultMaxBackoff)
	if err := mayBegin(ctx); err != nil {
		return err
	}
	ceiling := min(o.Pause, o.MaxPause)
	for n := 1; ; n++ {
		err := try(ctx)
		if err == nil || !o.again(err) || n == o.Tries {
			return err
		}
		t := time.NewTimer(rand.N(max(ceiling, 1)) + limitWait(err))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		if ctx.Err() != nil {
			if errors.Is(err, ctx.Err()) {
				return err
			}
			return fmt.Errorf("%w (no time for another try: %w)", err, ctx.Err())
		}
		ceiling = min(2*ceiling, o.MaxPause)
	}
}

// limitWait returns how long the node wants no more, if err is due to a limit of this client.
func limitWait(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		_, wait := e.Limit()
		return wait
	}
	return 0
}

// again reports whether another try is allowed after err and may help. For an IDError, this must
// hold for each of its IDs.
func (o *RetryOptions) again(err error) bool {
	if ids, ok := errors.AsType[*IDError](err); ok {
		for _, f := range ids.Failed {
			if !o.again(f.Err) {
				return false
			}
		}
		return len(ids.Failed) > 0
	}
	e, ok := errors.AsType[*Error](err)
	return ok && e.Temporary() && (e.SafeToRetry() || o.Idempotent && e.Delivered() == DeliveredUnknown)
}
