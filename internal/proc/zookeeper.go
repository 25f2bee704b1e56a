package proc

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// ZooKeeperOptions configures a ZooKeeper. The zero value is good.
type ZooKeeperOptions struct {
	Host *Host         // where it runs; nil: where this process does
	Port int           // zero: a free one
	Dir  string        // where it keeps its files; empty: a temporary directory
	Tick time.Duration // sessions live 2 to 20 of them; zero: 500 ms
}

// ZooKeeper is a server of its own. It keeps its data over a restart.
type ZooKeeper struct {
	*Process
	Addr string // host:port

	place *place
}

// The classes of Debian's package. It brings slf4j along and chooses no logger; this one writes to
// stderr.
const zooKeeperClasses = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar"

// StartZooKeeper starts a ZooKeeper and waits until it answers.
func StartZooKeeper(ctx context.Context, options ZooKeeperOptions) (*ZooKeeper, error) {
	if _, err := os.Stat("/usr/share/java/zookeeper.jar"); err != nil {
		return nil, fmt.Errorf("the Debian package zookeeper is not installed: %w", err)
	}
	if options.Tick == 0 {
		options.Tick = 500 * time.Millisecond
	}
	place, err := newPlace(options.Host, options.Port, 1, options.Dir)
	if err != nil {
		return nil, err
	}
	return startZooKeeper(ctx, place, options.Tick)
}

// startZooKeeper starts one. If it cannot, it leaves the place.
func startZooKeeper(ctx context.Context, place *place, tick time.Duration) (*ZooKeeper, error) {
	config := filepath.Join(place.dir, "zoo.cfg")
	text := fmt.Sprintf("tickTime=%d\ndataDir=%s\nclientPortAddress=%s\nclientPort=%d\n"+
		"admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n",
		tick.Milliseconds(), place.dir, place.host.IP(), place.numbers[0])
	err := os.WriteFile(config, []byte(text), 0o600)
	if err != nil {
		place.leave()
		return nil, err
	}
	z := &ZooKeeper{Addr: place.addr(0), place: place}
	z.Process, err = Start(ctx, Command{
		Path: "java",
		// Small, and compiled no further than a short life is worth. What zkServer.sh would run,
		// less the shell.
		Args: []string{"-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", zooKeeperClasses,
			"org.apache.zookeeper.server.quorum.QuorumPeerMain", config},
		Dir:   place.dir,
		Host:  place.host,
		Ready: func(ctx context.Context, _ *Process) error { return z.ready(ctx) },
	})
	if err != nil {
		place.leave()
		return nil, err
	}
	return z, nil
}

// Close kills the server, running or not, and removes its directory if that was a temporary one.
func (z *ZooKeeper) Close() {
	z.Kill()
	z.place.leave()
}

// Ask sends one of ZooKeeper's four-letter words ("ruok", "dump") and returns the answer. It asks
// from the server's host, so that it works while that is cut off, and waits for 5 s at most.
func (z *ZooKeeper) Ask(ctx context.Context, word string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := z.place.host.Dial(ctx, z.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func (z *ZooKeeper) ready(ctx context.Context) error {
	answer, err := z.Ask(ctx, "ruok")
	if err == nil && answer != "imok" {
		err = fmt.Errorf("ZooKeeper says %q", answer)
	}
	return err
}
