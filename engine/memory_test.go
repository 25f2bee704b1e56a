package engine

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

// small are limits with which a budget of 2 MiB is soon used up.
func small(budget int64) Config {
	return Config{MaxPayload: 1 << 16, MaxPending: 1 << 20, MaxIDs: 16, MaxInFlight: 1 << 12, MemoryBudget: budget,
		DefaultTTL: time.Minute, SlowConsumerTimeout: time.Minute}
}

// Many receivers that do not read hold no more together than the node's budget. Their senders hear
// why, and whoever reads notices nothing.
func TestMemoryBudgetRefuses(t *testing.T) {
	const budget, slow = 4 << 20, 12
	acrossLoops(t, small(budget), func(t *testing.T, n *node, from, _ *client) {
		by := n.watchOver()
		var ids []string
		for i := range slow {
			ids = append(ids, "slow"+strconv.Itoa(i))
			n.joinOn(1, ids[i]).shrink()
		}
		payload := strings.Repeat("x", 1<<16)
		refused := make(chan int)
		go func() {
			memory := 0
			for more := true; more; {
				f, err := from.read()
				if err != nil {
					break
				}
				var o codec.Outcome
				if f.kind == codec.KindOutcome && codec.DecodeOutcome(f.body, &o) == nil {
					if bytes.Equal(o.Reason, reasonMemory) {
						memory++
					}
					more = o.Code != codec.CodeNoRoute
				}
			}
			refused <- memory
		}()
		var most int
		// the kernel takes some MiB for each
		for round := 0; round < 200 && n.counters().MemoryRefused < slow; round++ {
			for _, id := range ids {
				from.post("from", id, payload, codec.FlagAck)
			}
			n.settle()
			most = max(most, n.Stats().MemoryHeld)
		}
		from.post("from", "nobody", "", codec.FlagAck)
		if memory := <-refused; memory == 0 {
			t.Error("nobody heard that the memory budget is nearly used up")
		}
		s := n.counters()
		if most > budget || most < budget/8 {
			t.Errorf("at most %d bytes were held, of %d", most, budget)
		}
		if s.MemoryRefused == 0 || s.MemoryClosed != 0 {
			t.Errorf("%d messages refused, %d connections closed", s.MemoryRefused, s.MemoryClosed)
		}
		by.unharmed()
	})
}

// Answers are not refused. So the connection that holds most is closed, and the log names it.
func TestMemoryBudgetCloses(t *testing.T) {
	var log notes
	cfg := small(1 << 20)
	cfg.Logger = log.logger()
	cfg.Hooks.Authenticate = limitedTo(Limits{})
	n := start(t, cfg)
	by := n.watchOver()
	begin := func(size int) *client {
		c := n.as("holder")
		held := n.Stats().MemoryHeld
		// the beginning of 65,600 bytes
		c.write(append([]byte{0, 1, 0, 0x40}, make([]byte, size-4)...))
		n.eventually("the beginning of a frame is counted", func() bool {
			s := n.Stats()
			return s.MemoryHeld >= held+size || s.MemoryClosed > 0
		})
		return c
	}
	few := begin(100)
	// from a quarter on, the buffer is as large as the frame: the others get less
	most := begin(65_500)
	for range 1 << 20 / 25_000 {
		begin(16_000)
	}
	n.eventually("a connection is closed", func() bool { return n.Stats().MemoryClosed > 0 })
	if e := most.fails(codec.FaultIdleTimeout); !strings.Contains(e.Message, "memory budget") {
		t.Errorf("the fault says %q", e.Message)
	}
	log.has(n, "session="+most.sessionID().String(), "identity=holder", "remote="+most.nc.LocalAddr().String(), "bytes=")
	n.eventually("all that are closed count for the identity", func() bool {
		return n.counted("holder", "memory-budget") == n.Stats().MemoryClosed
	})
	if held := n.Stats().MemoryHeld; held > 1<<20 {
		t.Errorf("%d bytes are held", held)
	}
	few.write(make([]byte, 65_604-100)) // the end of its frame, which is not one
	few.fails(codec.FaultWrongType)
	by.unharmed()
}

// The buffer of an unfinished frame is never much larger than what has come of it, nor than the
// frame, and few are needed until it is whole.
func TestPartsOfFrames(t *testing.T) {
	const whole, step = 1 << 20, 10_000
	l := bareLoop()
	l.bufs.shared = &sharedBufs{}
	l.pace.every = 1 << 30 // it has no clock to stamp with
	c := bareConn(l)
	moves := 0
	for n := 0; n < whole; {
		part := make([]byte, min(step, whole-n))
		before := cap(c.in.carry())
		c.in.keepPart(part, whole)
		n += len(part)
		if cap(c.in.carry()) != before {
			moves++
		}
		if most := min(4*n+newBuf, whole+whole/8); len(c.in.carry()) != n || cap(c.in.carry()) > most {
			t.Fatalf("%d bytes of %d are in a buffer of %d", len(c.in.carry()), n, cap(c.in.carry()))
		}
	}
	if moves > 8 {
		t.Errorf("%d buffers were needed", moves)
	}
}

// What slow receivers held goes back to the system when they are gone.
func TestMemoryGoesBack(t *testing.T) {
	cfg := small(64 << 20)
	cfg.MaxPending = 4 << 20
	n := start(t, cfg)
	from := n.join("from")
	go io.Copy(io.Discard, from.nc)
	var slow []*client
	for i := range 4 {
		c := n.join("slow" + strconv.Itoa(i))
		c.shrink()
		slow = append(slow, c)
	}
	payload := strings.Repeat("x", 1<<16)
	for n.Stats().MemoryHeld < 20<<20 {
		for i := range slow {
			from.post("from", "slow"+strconv.Itoa(i), payload, codec.FlagAck)
		}
		n.settle()
	}
	taken := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapSys - m.HeapReleased
	}
	before := taken()
	for _, c := range slow {
		c.nc.Close()
	}
	n.eventually("16 MiB are given back", func() bool { return taken()+16<<20 < before })
}

// So does what watches took.
func TestMemoryOfWatchesGoesBack(t *testing.T) {
	e, err := New(Config{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	r := relief{eng: e}
	for _, step := range []struct {
		watches int
		back    bool
	}{{0, false}, {1000, false}, {0, false}, {400_000, false}, {300_000, false}, {1000, true}} {
		r.gaveBack = time.Time{}
		e.dir.Probe().SetWatches(step.watches)
		r.look()
		if back := !r.gaveBack.IsZero(); back != step.back {
			t.Errorf("with %d watches, memory is given back: %v", step.watches, back)
		}
	}
}

// So does what many binds or unbinds took, as soon as the number of IDs has rested for a second.
func TestMemoryOfBindsGoesBack(t *testing.T) {
	var b idBurst
	now := time.Now()
	for i, step := range []struct {
		after time.Duration
		ids   int
		over  bool
	}{
		{0, 60_000, false}, {2 * time.Second, 60_000, false}, // too few
		{time.Second, 100_000, false}, {time.Second / 2, 200_000, false}, {time.Second / 2, 200_500, false},
		{time.Second, 200_900, true}, {time.Second, 200_900, false}, // it has given back
		{time.Second, 100_000, false}, {time.Second, 100_000, true},
	} {
		now = now.Add(step.after)
		over := b.over(step.ids, now)
		if over != step.over {
			t.Errorf("step %d, %d IDs: over is %v", i, step.ids, over)
		}
		if over {
			b.left = b.last
		}
	}
}

// So does what many connections took.
func TestMemoryOfConnectsGoesBack(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := relief{eng: e, gaveBack: time.Now().Add(-giveBackPause)}
	look := func() (gaveBack bool) {
		before := r.gaveBack
		r.look()
		r.burst.since = r.burst.since.Add(-restTime)
		return r.gaveBack != before
	}
	e.acceptor.clients.open = giveBackIDs / connIDs
	if look() {
		t.Error("memory is given back while connections come")
	}
	if !look() {
		t.Error("memory is not given back after many connections have come")
	}
}

// The memory that a process may have is that of its cgroup, or of one around it.
func TestMachineMemory(t *testing.T) {
	machine := machineMemory(t.TempDir())
	if machine < 1<<26 {
		t.Fatalf("the machine has %d bytes", machine)
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"version 2", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000000\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 1_000_000},
		{"version 2 in a container", map[string]string{"proc/self/cgroup": "0::/../outside\n", "sys/fs/cgroup/memory.max": "2000000\n"}, 2_000_000},
		{"version 1", map[string]string{"proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "3000000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 3_000_000},
		{"no limit", map[string]string{"proc/self/cgroup": "0::/\n"}, machine},
	} {
		root := t.TempDir()
		for name, text := range tc.files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := machineMemory(root); got != tc.want {
			t.Errorf("%s: %d bytes, want %d", tc.name, got, tc.want)
		}
	}
}
