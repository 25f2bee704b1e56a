package proc

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// freePorts returns TCP ports of 127.0.0.1 that nobody listened on a moment ago.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only at the end, so that no two are the same
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// onFreePorts starts something that listens on n ports, on others when somebody else was faster.
func onFreePorts[S any](n int, start func(ports []int) (S, error)) (S, error) {
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(n)
		if err != nil {
			var none S
			return none, err
		}
		started, err := start(ports)
		if err == nil || attempt == 5 || !strings.Contains(err.Error(), "in use") {
			return started, err
		}
	}
}

func hostPort(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// folder is where a server keeps its files.
type folder struct {
	path string
	temp bool // made here, so removed here
}

// newFolder makes dir if it is not there; a temporary one if dir is empty.
func newFolder(dir string) (folder, error) {
	if dir == "" {
		path, err := os.MkdirTemp("", "distmsg-")
		return folder{path: path, temp: true}, err
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return folder{}, err
	}
	return folder{path: path}, os.MkdirAll(path, 0o755)
}

func (f folder) remove() {
	if f.temp {
		_ = os.RemoveAll(f.path)
	}
}
