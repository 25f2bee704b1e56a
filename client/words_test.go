package client

import (
	"testing"

	"distmsg/codec"
)

// Errors name what is wrong where a reader looks for it.
func TestWordsOfErrors(t *testing.T) {
	bind := &IDError{Op: "bind", Failed: []IDFailure{
		{"", badID("")}, {"a b", &Error{Code: codec.CodeTaken}}, {"carol", &Error{Code: codec.CodeTaken}},
	}}
	nodes := func(addrs ...string) error {
		_, err := Config{Nodes: addrs}.withDefaults()
		return err
	}
	for _, c := range []struct {
		got  error
		want string
	}{
		{bind, `client: bind "": bad_id: an ID has 1 to 255 bytes, not 0, "a b": taken, carol: taken`},
		{nodes(), "client: Config.Nodes names no node: give the host:port of one at least, or set Config.Membership"},
		{nodes("localhost"), `client: Config.Nodes: "localhost" is not a host:port address`},
	} {
		if c.got == nil || c.got.Error() != c.want {
			t.Errorf("got  %v\nwant %s", c.got, c.want)
		}
	}
}
