package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"distmsg/codec"
)

// named is an Authenticate hook that lets everyone in under one name.
func named(name string) func(context.Context, Login) (Identity, error) {
	return func(context.Context, Login) (Identity, error) { return Identity{Name: name}, nil }
}

// nameIsCredentials is an Authenticate hook that takes the credentials for the name.
func nameIsCredentials(_ context.Context, l Login) (Identity, error) {
	return Identity{Name: string(l.Credentials)}, nil
}

// A hook that cannot tell who a client is does not refuse the client's credentials, even if it says
// more than that in its error.
func TestRetryLogin(t *testing.T) {
	for _, err := range []error{
		ErrRetryLogin,
		fmt.Errorf("the user service is down: %w", ErrRetryLogin),
		errors.Join(errors.New("token is not known"), ErrRetryLogin),
	} {
		n := start(t, Config{Hooks: Hooks{Authenticate: func(context.Context, Login) (Identity, error) { return Identity{}, err }}})
		c := n.dial()
		c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
		if e := c.fails(codec.FaultGoingAway); e.Message != "the node cannot check credentials at the moment: try again later" {
			t.Errorf("%q", e.Message)
		}
		if s := n.counters(); s.Faults[codec.FaultUnauthenticated] != 0 {
			t.Errorf("%v", s.Faults)
		}
	}
}
