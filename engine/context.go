package engine

import (
	"context"
	"fmt"
	"time"
)

// contextError returns the error of a context that has ended, with the cause that its owner gave,
// if any. It returns nil if the context has not ended. A deadline counts from the moment it passes,
// even if the context's own timer has not run yet.
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

// mayBegin is the first check of every call. If the context has already ended, the call does
// nothing and returns this error.
func mayBegin(ctx context.Context) error {
	if err := contextError(ctx); err != nil {
		return fmt.Errorf("engine: nothing was done: %w", err)
	}
	return nil
}
