package engine

import (
	"context"
	"fmt"
	"time"
)

// contextError is the error of a context that has ended, with the cause that its owner has given
// it, if any; nil while it has not. A deadline counts from the moment it passes, which may be
// before the context's own timer has run.
func contextError(ctx context.Context) error {
	err := ctx.Err()
	if deadline, ok := ctx.Deadline(); err == nil && ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	if cause := context.Cause(ctx); err != nil && cause != err {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// mayBegin is what every call asks first: a context that has ended before lets nothing be done.
func mayBegin(ctx context.Context) error {
	if err := contextError(ctx); err != nil {
		return fmt.Errorf("engine: nothing was done: %w", err)
	}
	return nil
}
