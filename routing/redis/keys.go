package redis

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"distmsg/routing"
)

// groups is how many hash tags there are. It is part of the format of the data.
const groups = 256

// longID is the length up to which Redis keeps a hash field in the compact form
// (hash-max-listpack-value).
const longID = 64

// keys names the keys of one cluster.
type keys struct {
	prefix  string
	buckets int
}

// bucket is one of the hashes that hold bindings.
type bucket struct {
	number int
	long   bool
}

func (b bucket) group() int { return b.number % groups }

// bucketOf returns the bucket of an ID. Data that were written before there were keys stay where
// they are: then all nodes, of any version, continue to use the hash without a key.
func (k keys) bucketOf(key hashKey, id string) bucket {
	var hash uint64
	if key.text == "" {
		hash = xxhash.Sum64String(id)
	} else {
		hash = siphash(key.a, key.b, id)
	}
	return bucket{number: int(hash % uint64(k.buckets)), long: len(id) > longID}
}

func (k keys) bucket(b bucket) string {
	kind := ":b:"
	if b.long {
		kind = ":l:"
	}
	return k.marker(b.group()) + kind + strconv.Itoa(b.number)
}

func (k keys) session(id routing.SessionID) string {
	return k.marker(sessionGroup(id)) + ":s:" + hex.EncodeToString(id[:])
}

// a session ID is random, and there are 256 groups
func sessionGroup(id routing.SessionID) int { return int(id[0]) }

func (k keys) marker(group int) string { return k.prefix + ":{" + strconv.Itoa(group) + "}" }

// ended is a ring of the group's sessions that have ended; see end.lua.
func (k keys) ended(group int) string { return k.marker(group) + ":ended" }

// hash is the key that holds the secret of the hash.
func (k keys) hash() string { return k.prefix + ":hash" }

// probe is the key of a group to which Probe writes.
func (k keys) probe(group int) string { return k.marker(group) + ":probe" }

func (k keys) sweeper() string { return k.prefix + ":sweeper" }

func (k keys) identity() string { return k.prefix + ":identity" }

func (k keys) fingerprint() string { return k.prefix + ":fingerprint" }

// bindingLen is the length of a binding as it is stored: session, epoch.
const bindingLen = 24

func appendBinding(to []byte, b routing.Binding) []byte {
	to = append(to, b.Session[:]...)
	return binary.BigEndian.AppendUint64(to, b.Epoch)
}

func encodeBinding(b routing.Binding) []byte { return appendBinding(make([]byte, 0, bindingLen), b) }

// decodeBinding reads what appendBinding writes. It returns false if s is something else.
func decodeBinding(s string) (b routing.Binding, ok bool) {
	if len(s) != bindingLen {
		return b, false
	}
	copy(b.Session[:], s)
	b.Epoch = decodeUint(s[len(b.Session):])
	// no frame has room for a greater epoch, and no node has written one
	return b, b.Epoch < routing.MaxEpoch
}

func decodeUint(s string) uint64 { return binary.BigEndian.Uint64([]byte(s[:8])) }

// presenceField and presenceValue are an entry of a session's hash.
func presenceField(p routing.Presence) []byte {
	return append(binary.BigEndian.AppendUint64(nil, p.Incarnation), p.Node...)
}

func presenceValue(p routing.Presence) []byte { return binary.BigEndian.AppendUint64(nil, p.Serial) }

const deadField = "dead"

// decodePresence reads a session's hash.
func decodePresence(hash map[string]string) routing.SessionPresence {
	var s routing.SessionPresence
	for field, value := range hash {
		switch {
		case field == deadField:
			s.Dead = true
		case len(field) >= 8 && len(value) == 8:
			s.Nodes = append(s.Nodes, routing.Presence{
				Node: field[8:], Incarnation: decodeUint(field), Serial: decodeUint(value),
			})
		}
	}
	return s
}
