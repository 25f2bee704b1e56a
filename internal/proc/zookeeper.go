package proc

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ZooKeeperOptions configures a ZooKeeper. The zero value is good.
type ZooKeeperOptions struct {
	Dir  string        // where it keeps its files; empty: a temporary directory
	Tick time.Duration // sessions live 2 to 20 of them; zero: 500 ms
}

// ZooKeeper is a server of its own. It keeps its data over a restart.
type ZooKeeper struct {
	*Process
	Addr string // host:port

	folder folder
}

// The classes of Debian's package. It brings slf4j along and chooses no logger; this one writes to stderr.
const zooKeeperClasses = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar"

// StartZooKeeper starts a ZooKeeper and waits until it answers.
func StartZooKeeper(ctx context.Context, options ZooKeeperOptions) (*ZooKeeper, error) {
	if _, err := os.Stat("/usr/share/java/zookeeper.jar"); err != nil {
		return nil, fmt.Errorf("the Debian package zookeeper is not installed: %w", err)
	}
	if options.Tick == 0 {
		options.Tick = 500 * time.Millisecond
	}
	return onFreePorts(1, func(ports []int) (*ZooKeeper, error) {
		return startZooKeeper(ctx, ports[0], options)
	})
}

func startZooKeeper(ctx context.Context, port int, options ZooKeeperOptions) (*ZooKeeper, error) {
	dir, err := newFolder(options.Dir)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir.path, "zoo.cfg")
	text := fmt.Sprintf("tickTime=%d\ndataDir=%s\nclientPortAddress=127.0.0.1\nclientPort=%d\n"+
		"admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n", options.Tick.Milliseconds(), dir.path, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		dir.remove()
		return nil, err
	}
	z := &ZooKeeper{Addr: hostPort(port), folder: dir}
	z.Process, err = Start(ctx, Command{
		Path: "java",
		// Small, and compiled no further than a short life is worth. What zkServer.sh would run, less the shell.
		Args: []string{"-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", zooKeeperClasses,
			"org.apache.zookeeper.server.quorum.QuorumPeerMain", config},
		Dir:   dir.path,
		Ready: func(ctx context.Context, _ *Process) error { return z.ask(ctx) },
	})
	if err != nil {
		dir.remove()
		return nil, err
	}
	return z, nil
}

// Close kills the server, running or not, and removes its directory if that was a temporary one.
func (z *ZooKeeper) Close() {
	z.Kill()
	z.folder.remove()
}

// ask sends "are you ok".
func (z *ZooKeeper) ask(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", z.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, "ruok"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && string(answer) != "imok" {
		err = fmt.Errorf("ZooKeeper says %q", answer)
	}
	return err
}
