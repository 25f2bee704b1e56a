package zookeeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"unicode/utf8"

	"distmsg/discovery"
)

// maxRecord is the maximum size in bytes of a znode's data that is read. A node's record has
// about 200.
const maxRecord = 16 << 10

// recordVersion is the newest version of a znode's data that this package reads, and the version
// that it writes.
const recordVersion = 1

// The states of a node.
const (
	stateServing  = "serving"
	stateDraining = "draining" // accepts no new sessions
)

// znode is the data of a node's znode.
type znode struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// in hex: as a JSON number it would lose digits in many languages
	Incarnation string `json:"incarnation"`
	Addr        string `json:"addr"`
	PeerAddr    string `json:"peer_addr,omitempty"`
	State       string `json:"state"`
	Load        int    `json:"load"`
}

func incarnationText(v uint64) string { return fmt.Sprintf("%016x", v) }

// nameOf returns the name of r's znode: unique per incarnation, and one path element whatever the
// ID contains.
func nameOf(r discovery.Record) string {
	return url.PathEscape(r.ID) + "-" + incarnationText(r.Incarnation)
}

func encode(r discovery.Record) ([]byte, error) {
	z := znode{
		Version: recordVersion, ID: r.ID, Incarnation: incarnationText(r.Incarnation),
		Addr: r.Addr, PeerAddr: r.PeerAddr, State: stateServing, Load: r.Load,
	}
	if r.Draining {
		z.State = stateDraining
	}
	return json.Marshal(z)
}

func decode(data []byte) (discovery.Record, error) {
	// the JSON package would replace invalid bytes, so that two names could become one
	if !utf8.Valid(data) {
		return discovery.Record{}, errors.New("it is not UTF-8")
	}
	var z znode
	if err := json.Unmarshal(data, &z); err != nil {
		return discovery.Record{}, err
	}
	if z.Version < 1 || z.Version > recordVersion {
		return discovery.Record{}, fmt.Errorf("version %d, this program knows up to %d", z.Version, recordVersion)
	}
	incarnation, err := strconv.ParseUint(z.Incarnation, 16, 64)
	if err != nil {
		return discovery.Record{}, fmt.Errorf("incarnation: %w", err)
	}
	r := discovery.Record{
		ID: z.ID, Incarnation: incarnation, Addr: z.Addr, PeerAddr: z.PeerAddr,
		Draining: z.State != stateServing, Load: z.Load,
	}
	return r, r.Check()
}
