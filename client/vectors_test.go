package client

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"

	"distmsg/codec"
)

// What the protocol's vectors say that a client refuses ends the connection, and what they say that
// it skips does not.
func TestVectorsForClients(t *testing.T) {
	file, err := os.ReadFile("../docs/protocol/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Bad []struct {
			Name, Reader, Hex string
			Closed            bool
		}
	}
	if err := json.Unmarshal(file, &vectors); err != nil {
		t.Fatal(err)
	}
	n := newFakeNode(t).start()
	_, node := attachFake(t, n, Config{MaxBackoff: 10 * time.Millisecond}) // the pauses would grow
	seen := map[bool]int{}
	for _, v := range vectors.Bad {
		if v.Reader == "N" {
			continue
		}
		frame, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		seen[v.Closed]++
		node.put(append(frame, codec.AppendPing(nil, 77)...))
		body, err := node.nextFrame()
		if open := err == nil; open == v.Closed {
			t.Errorf("%s: %x, %v; want it closed: %v", v.Name, body, err, v.Closed)
		}
		if err != nil {
			node = n.accept()
		} else if nonce, err := codec.DecodePong(body); nonce != 77 || err != nil {
			t.Errorf("%s: %x", v.Name, body)
		}
	}
	if seen[true] < 20 || seen[false] < 5 {
		t.Errorf("%v: too few vectors are for clients", seen)
	}
}
