package client

import (
	"context"
	"fmt"
	"time"

	"distmsg/codec"
)

// over returns the error of a ctx that has ended, or nil. A deadline counts as soon as it has
// passed, even if the context's own timer has not run yet.
func over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// mayBegin returns an error if ctx has ended. Every call checks it first, and does nothing after an
// error.
func mayBegin(ctx context.Context) error {
	if err := over(ctx); err != nil {
		return fmt.Errorf("client: nothing was done: %w", err)
	}
	return nil
}

// blame makes the context's deadline the cause of an error whose outcome is timeout or expired.
func (e *Error) blame() {
	if e.cause == nil && (e.Code == codec.CodeTimeout || e.Code == codec.CodeExpired) {
		e.cause = context.DeadlineExceeded
	}
}
