package drive

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"distmsg/codec"
)

// maxCredentials leaves room in the hello frame for everything else.
const maxCredentials = codec.MaxHelloFrame - 512

// ReadCredentials returns what a login shows to a node: the content of a file without the space
// around it. Without a file, it returns nil.
func ReadCredentials(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSpace(text)
	if len(text) > maxCredentials {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", file, len(text), maxCredentials)
	}
	return text, nil
}

// credentialsFunc returns ReadCredentials as the SDK wants it.
func credentialsFunc(file string) func(context.Context) ([]byte, error) {
	if file == "" {
		return nil
	}
	return func(context.Context) ([]byte, error) { return ReadCredentials(file) }
}

// renewalShare is the part of the time that the node allows in which a connection begins to log in
// again. The rest is for further attempts.
const renewalShare = 4

// relogin logs in again, on another leg to the same node. This leg leaves when the other one is
// ready, as if the node drained.
func (r *relay) relogin(body []byte) error {
	within, _, err := codec.DecodeRelogin(body)
	if err != nil {
		return err
	}
	l := r.leg
	l.outlived = time.Duration(min(within, maxWithin)) * time.Millisecond
	if l.conn.cur == l {
		l.renew()
	} // otherwise up does it, or another leg has replaced this one
	return nil
}

const maxWithin = uint64(time.Hour / time.Millisecond) // in ms
