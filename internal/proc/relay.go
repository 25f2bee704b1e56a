package proc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// RelayOptions configures a relay. The zero value is good.
type RelayOptions struct {
	Host   *Host     // where it runs; nil: where this process does
	CPUs   CPUs      // see Command.CPUs
	Stderr *os.File  // receives its log in place of Output; nil: Output does
	Env    []string  // in addition to this process's
	Log    io.Writer // see Command.Log
	// the port for clients; the next is for HTTP, and the one after that for other nodes; zero:
	// free ones
	Port int
	// the program to run; empty: cmd/relay, compiled from this module
	Program string

	// Flags follow those that say where it listens for clients and for HTTP. In them, {addr},
	// {peer-addr} and {admin-addr} stand for the fields of Relay with these names.
	Flags []string
}

// Relay is a node: our cmd/relay. It keeps its addresses over a restart.
type Relay struct {
	*Process
	Addr string // host:port for clients
	// host:port that is reserved for other nodes; the relay knows it only from its flags
	PeerAddr  string
	AdminAddr string // host:port for HTTP

	place *ports
	http  *http.Client
}

// StartRelay starts a relay and waits until it is ready. The first call without Program compiles
// it.
func StartRelay(ctx context.Context, options RelayOptions) (*Relay, error) {
	path, err := options.program()
	if err != nil {
		return nil, err
	}
	place, err := reservePorts(options.Host, options.Port, 3)
	if err != nil {
		return nil, err
	}
	r := &Relay{Addr: place.addr(0), AdminAddr: place.addr(1), PeerAddr: place.addr(2), place: place}
	r.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return options.Host.Dial(ctx, addr) },
		DisableKeepAlives: true,
	}}
	r.Process, err = Start(ctx, Command{
		Path:   path,
		Args:   r.args(options),
		Env:    options.Env,
		Stderr: options.Stderr,
		Host:   options.Host,
		CPUs:   options.CPUs,
		Log:    options.Log,
		Ready:  func(ctx context.Context, _ *Process) error { return r.get(ctx, "/readyz", io.Discard) },
		name:   "relay",
	})
	if err != nil {
		place.release()
		return nil, err
	}
	return r, nil
}

// program returns the path of the program to run.
func (o *RelayOptions) program() (string, error) {
	if o.Program != "" {
		return o.Program, nil
	}
	file, err := relayProgram()
	if err != nil {
		return "", err
	}
	// Run the open file, because it has no name any more. /proc/self would be the child's.
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), nil
}

// relayProgram is cmd/relay, compiled once for this process. The file is already removed, so nobody
// needs to know when it is no longer used.
var relayProgram = sync.OnceValues(func() (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "distmsg-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := buildCached(ctx, dir, "./cmd/relay"); err != nil {
		return nil, err
	}
	return os.Open(filepath.Join(dir, "relay"))
})

func (r *Relay) args(options RelayOptions) []string {
	args := []string{"--listen", r.Addr, "--admin-listen", r.AdminAddr}
	if options.Host != nil {
		args = append(args, "--insecure-listen") // the address is not loopback
	}
	addrs := strings.NewReplacer("{addr}", r.Addr, "{peer-addr}", r.PeerAddr, "{admin-addr}", r.AdminAddr)
	for _, flag := range options.Flags {
		args = append(args, addrs.Replace(flag))
	}
	return args
}

// Close kills the relay if it runs, and releases its ports.
func (r *Relay) Close() {
	r.Kill()
	r.place.release()
}

// Health returns the answer of /healthz: ok, or degraded and a line for each thing that is missing.
// It asks as Metric does.
func (r *Relay) Health(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var text strings.Builder
	err := r.get(ctx, "/healthz", &text)
	return text.String(), err
}

// Metric returns the value of a metric, by its name as in /metrics. A name without labels means the
// sum over all labels. It asks from the relay's host, so that it works while the host is cut off,
// and waits for 5 s at most.
func (r *Relay) Metric(ctx context.Context, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var text strings.Builder
	if err := r.get(ctx, "/metrics", &text); err != nil {
		return 0, err
	}
	return sumOf(text.String(), name)
}

// WaitMetric waits until a metric has a value, or ctx ends.
func (r *Relay) WaitMetric(ctx context.Context, name string, want float64) error {
	for {
		got, err := r.Metric(ctx, name)
		if err == nil && got == want {
			return nil
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return fmt.Errorf("%s of %s is %v (%v), and not %v: %w", name, r.Addr, got, err, want, ctx.Err())
		}
	}
}

// Order gives the relay an order of operators that needs no arguments, such as drain and undrain.
// It waits for 15 s at most.
func (r *Relay) Order(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.AdminAddr+"/api/v1/"+name, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := r.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", name, response.Status, text)
	}
	return err
}

// sumOf reads Prometheus's text format.
func sumOf(text, name string) (sum float64, err error) {
	found := false
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		cut := strings.LastIndexByte(line, ' ') // labels may contain others
		if cut < 0 || line[:cut] != name && !strings.HasPrefix(line[:cut], name+"{") {
			continue
		}
		value, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		sum, found = sum+value, true
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return sum, nil
}

// get writes the answer to a request to w, if the status is 200.
func (r *Relay) get(ctx context.Context, path string, w io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.AdminAddr+path, nil)
	if err != nil {
		return err
	}
	response, err := r.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	_, err = io.Copy(w, response.Body)
	return err
}
