package zookeeper

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/go-zookeeper/zk"

	"distmsg/discovery"
)

// lines is a log to look into.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

// What is no node's record harms nobody: the records that are right are read, the others are named
// in the log, once, and for as long as they stand. A record of a megabyte does not end the
// connection.
func TestWrongRecords(t *testing.T) {
	t.Parallel()
	log := new(lines)
	m, err := Open(testContext(t), Config{URL: place(t, shared.Addr), Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	announce(t, m, record(1))
	conn := raw(t, shared.Addr)
	put := func(name string, data string) {
		t.Helper()
		if _, err := conn.Create(m.dir+"/"+name, []byte(data), zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
	}
	node := func(id, addr, more string) string {
		return fmt.Sprintf(`{"version":1,"id":"%s","incarnation":"1","addr":"%s","state":"serving","load":0%s}`, id, addr, more)
	}
	wrong := map[string]string{
		"long":  node("long", strings.Repeat("a", 300)+":1", ""),
		"name":  node(strings.Repeat("n", 256), "a:1", ""),
		"bytes": node("bytes\xff", "a:1", ""),
		"ctrl":  node(`ctrl\u0007`, "a:1", ""),
		"empty": node("", "a:1", ""),
		"where": node("where", "nowhere", ""),
		"large": node("large", "a:1", `,"x":"`+strings.Repeat("x", 1_000_000)+`"`),
	}
	for name, data := range wrong {
		put(name, data)
	}
	put("later", node("later", "a:9", `,"zone":"b","weights":{"x":[1,2]}`)) // of a later version
	want := []discovery.Record{{ID: "later", Incarnation: 1, Addr: "a:9"}, record(1)}
	sees(t, m, want)
	eventually(t, patience, "all are named", func() bool { return len(m.Skipped()) == len(wrong) })
	eventually(t, patience, "all are in the log", func() bool { return log.count("is no valid record of a node") >= len(wrong) })
	for _, line := range m.Skipped() {
		if log.count(strings.Split(line, ":")[0]+":") != 1 {
			t.Errorf("not once in the log: %s", line)
		}
	}
	for _, say := range []string{
		m.dir + `/large is no valid record of a node: it has 1000`, m.dir + "/name is no valid record of a node: its ID has 256 bytes",
		m.dir + "/bytes is no valid record of a node: it is not UTF-8",
	} {
		if !strings.Contains(strings.Join(m.Skipped(), "\n"), say) {
			t.Errorf("%q lack %q", m.Skipped(), say)
		}
	}
	if log.count("lost the connection") > 0 || m.Err() != nil {
		t.Errorf("the connection was lost, %v", m.Err())
	}
	for name := range wrong {
		if err := conn.Delete(m.dir+"/"+name, -1); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "none is named", func() bool { return len(m.Skipped()) == 0 })
	sees(t, m, want)

	far := record(2)
	far.Addr = strings.Repeat("a", 300) + ":7400"
	if err := m.Announce(testContext(t), far); err == nil || !strings.Contains(err.Error(), "has 305 bytes, at most 255 are allowed") {
		t.Errorf("announced: %v", err)
	}
}

// Of very many znodes those are read that are known, and some of the others.
func TestTooManyRecords(t *testing.T) {
	k := &keeper{entries: map[string]entry{"z": {}, "y": {wrong: "it is"}}, mine: map[string]struct{}{"zz": {}}}
	names := []string{"y", "z", "zz"}
	for i := range maxNodes {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	chosen := k.choose(names)
	if len(chosen) != maxNodes || chosen[0] != "zz" || chosen[1] != "z" || k.beyond != 3 {
		t.Errorf("%d chosen, first %q, %d beyond", len(chosen), chosen[:3], k.beyond)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint(i))
	}
	if few := some(many); len(few) != maxNamed+1 || few[maxNamed] != "and 84 more like these" {
		t.Errorf("%q", few)
	}
}
