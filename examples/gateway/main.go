// Command gateway is an app server with HTTP: users log in, send and receive with curl or on the
// page that it serves. It uses only the SDK, package client. It is meant to be read: README.md
// describes it.
//
//	main.go         flags, and the life of the program
//	tls.go          flags about TLS
//	credentials.go  what nodes are shown that ask who the gateway is
//	gateway.go      who is logged in here, and what is sent and looked up for them
//	inbox.go        what arrived for one ID, kept until its pages have read it
//	events.go       the stream that a page reads it from
//	http.go         parameters, answers, and the HTTP code of each outcome
//	page.html       the page
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"distmsg/client"
	"distmsg/discovery"
	"distmsg/discovery/dns"
	"distmsg/discovery/zookeeper"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gateway:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	addr := flags.String("http", "127.0.0.1:7020", "`address` to serve HTTP on")
	nodes := flags.String("nodes", "127.0.0.1:7400", "`addresses` of relay nodes, host:port[,host:port...]")
	source := flags.String("discovery", "", "find the nodes instead in ZooKeeper, `zk://host:port[,host:port...]/path`,\n"+
		"or by DNS, dns://name:port with the port for clients")
	credentials := flags.String("credentials-file", "", "`file` with what nodes ask for, such as a token; it is read before each login")
	var secure tlsFlags
	secure.addTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: there are flags only, see --help", flags.Arg(0))
	}

	config, err := secure.config()
	if err != nil {
		return err
	}
	cfg := client.Config{Nodes: strings.Split(*nodes, ","), Agent: "gateway", TLS: config, CredentialsFunc: credentialsFrom(*credentials)}
	if *source != "" {
		membership, err := find(ctx, *source)
		if err != nil {
			return err
		}
		defer membership.Close()
		cfg.Nodes, cfg.Membership = nil, membership
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	g, err := dial(ctx, cfg)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	fmt.Printf("open http://%s\n", listener.Addr())
	return errors.Join(serve(ctx, g, listener), g.close())
}

// membership finds nodes until it is closed.
type membership interface {
	discovery.Membership
	Close()
}

// find opens what a URL names.
func find(ctx context.Context, url string) (membership, error) {
	if strings.HasPrefix(url, "dns:") {
		return dns.Open(ctx, dns.Config{URL: url})
	}
	return zookeeper.Open(ctx, zookeeper.Config{URL: url, ReadOnly: true})
}

// serve answers requests until ctx ends, and then lets the current requests finish.
func serve(ctx context.Context, g *gateway, listener net.Listener) error {
	server := &http.Server{
		Handler:           g.handler(ctx),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second, // for an answer; events has a limit of its own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxRequest,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	return server.Shutdown(ctx)
}
