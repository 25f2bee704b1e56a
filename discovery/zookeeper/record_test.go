package zookeeper

import (
	"math"
	"strings"
	"testing"

	"distmsg/discovery"
)

func TestRecordComesBack(t *testing.T) {
	for _, r := range []discovery.Record{
		record(1), {ID: "x"}, {ID: "a/b ü%", Incarnation: math.MaxUint64, Addr: "[::1]:1", Draining: true, Load: 1 << 40},
	} {
		data, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(data)
		if err != nil || got != r {
			t.Errorf("%v became %v, %v", r, got, err)
		}
		if name := nameOf(r); strings.ContainsAny(name, "/ ") {
			t.Errorf("%q is the name of %v", name, r)
		}
	}
}

// The format is a promise to other versions and other languages.
func TestRecordFormat(t *testing.T) {
	data, err := encode(discovery.Record{ID: "node-1", Incarnation: 7, Addr: "10.0.1.1:7400", PeerAddr: "10.0.1.1:7402"})
	const want = `{"version":1,"id":"node-1","incarnation":"0000000000000007","addr":"10.0.1.1:7400",` +
		`"peer_addr":"10.0.1.1:7402","state":"serving","load":0}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
	got, err := decode([]byte(`{"version":1,"zone":"b","id":"n","incarnation":"f","addr":"a:1","state":"resting","load":3}`))
	if want := (discovery.Record{ID: "n", Incarnation: 15, Addr: "a:1", Draining: true, Load: 3}); err != nil || got != want {
		t.Errorf("with a field and a state that we do not know: %v, %v", got, err)
	}
	for _, text := range []string{
		"", "x", "{}", "[]", `{"version":2,"id":"n","incarnation":"f"}`, `{"version":1,"id":"n"}`, `{"version":1,"incarnation":"f"}`,
	} {
		if got, err := decode([]byte(text)); err == nil {
			t.Errorf("%q gave %v", text, got)
		}
	}
}

func TestNodesOf(t *testing.T) {
	former, now, draining, nowhere := record(1), record(1), record(2), record(3)
	now.ID, draining.Draining, nowhere.Addr = "node-1 again", true, ""
	got := nodesOf([]discovery.Record{former, record(4), now, draining, nowhere})
	if len(got) != 2 || got[0] != (discovery.Node{ID: now.ID, Addr: now.Addr}) || got[1].ID != record(4).ID {
		t.Errorf("%v", got)
	}
}
