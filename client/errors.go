package client

import (
	"errors"
	"strconv"
	"strings"

	"distmsg/codec"
)

// ErrClosed is the error of every call after Close, or after another client has taken over the
// session (a copy of it, in a process that was forked or restored from a snapshot; State says so).
// Nothing was sent.
var ErrClosed = errors.New("client: the session is closed")

// ErrAnswered is the error of a second answer to one delivery, and of any answer to a Delivery
// whose handler has returned.
var ErrAnswered = errors.New("client: this delivery was already answered, or its handler has returned")

// The outcomes as errors.Is targets: errors.Is(err, ErrNoRoute) holds for every *Error with that
// code, and for an *IDError that contains one.
var (
	ErrRejected            = &Error{Code: codec.CodeRejected}
	ErrNoRoute             = &Error{Code: codec.CodeNoRoute}
	ErrUnreachable         = &Error{Code: codec.CodeUnreachable}
	ErrOverflow            = &Error{Code: codec.CodeOverflow}
	ErrExpired             = &Error{Code: codec.CodeExpired}
	ErrRegistryUnavailable = &Error{Code: codec.CodeRegistryUnavailable}
	ErrDraining            = &Error{Code: codec.CodeDraining}
	ErrDenied              = &Error{Code: codec.CodeDenied}
	ErrTooLarge            = &Error{Code: codec.CodeTooLarge}
	ErrTimeout             = &Error{Code: codec.CodeTimeout}
	ErrLost                = &Error{Code: codec.CodeLost}

	// Bind with RejectNew: another live session holds the ID
	ErrTaken      = &Error{Code: codec.CodeTaken}
	ErrSuperseded = &Error{Code: codec.CodeSuperseded} // a newer binding of the ID stands
	ErrBadID      = &Error{Code: codec.CodeBadID}      // the ID is empty or has more than 255 bytes
)

// Error is an outcome other than acked.
type Error struct {
	// Code is the outcome.
	Code Code
	// Reason is for people: for rejected it comes from the receiver, otherwise from the node or the
	// SDK. It may be empty.
	Reason string
	// Reply is the payload of a receiver's rejection, which is usually nil. The caller owns it.
	Reply []byte

	cause error
}

// Delivered says whether the message reached its receiver: yes, no or unknown.
func (e *Error) Delivered() Delivered { return e.Code.Delivered() }

// SafeToRetry reports whether sending again cannot deliver twice. Where it is false and Delivered
// is unknown (timeout, lost), the message may still be sent again if two copies do no harm. It does
// not mean that a retry helps: no_route is safe to retry, but lasts while the receiver is offline.
func (e *Error) SafeToRetry() bool { return e.Code.SafeToRetry() }

// Temporary reports whether the cause may pass within seconds and by itself: unreachable, overflow,
// expired, draining, registry_unavailable, timeout, lost. After a pause that doubles, send again
// what is both SafeToRetry and Temporary.
func (e *Error) Temporary() bool { return e.Code.Temporary() }

// Retryable is SafeToRetry.
//
// Deprecated: a loop that checks only this retries forever to an offline user. Use SafeToRetry and
// Temporary.
func (e *Error) Retryable() bool { return e.SafeToRetry() }

// Error returns the outcome word and the reason.
func (e *Error) Error() string {
	if e.Reason == "" {
		return "client: " + e.Code.String()
	}
	return "client: " + e.Code.String() + ": " + e.Reason
}

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Unwrap returns the cause of an outcome that the SDK decided, such as context.Canceled. It returns
// nil if a node decided it.
func (e *Error) Unwrap() error { return e.cause }

// IDError says which IDs of a Bind or Unbind failed. The others succeeded.
type IDError struct {
	Op     string      // "bind" or "unbind"
	Failed []IDFailure // in the order the IDs were given
}

// IDFailure is one ID that failed and why.
type IDFailure struct {
	ID  string
	Err *Error
}

// Error names the first few IDs and their outcomes.
func (e *IDError) Error() string {
	const shown = 5
	var b strings.Builder
	b.WriteString("client: " + e.Op)
	for i, f := range e.Failed {
		if i == shown {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(" " + showID(f.ID) + ": " + strings.TrimPrefix(f.Err.Error(), "client: "))
	}
	return b.String()
}

// showID returns an ID as it is, or in quotes if it is empty or has spaces, so that readers can
// recognise it.
func showID(id string) string {
	if quoted := strconv.Quote(id); id == "" || strings.ContainsAny(id, " ,:") || quoted != `"`+id+`"` {
		return quoted
	}
	return id
}

// Unwrap returns the failures' errors, for errors.Is and errors.As.
func (e *IDError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		errs[i] = f.Err
	}
	return errs
}
