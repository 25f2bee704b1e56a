package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"distmsg/loadtest/agents"
)

// agentsFlags say which agents make the load in place of this process.
type agentsFlags struct {
	addrs     []string
	tokenFile string
	tls       tlsFlags
}

func (o *agentsFlags) addTo(f *pflag.FlagSet) {
	f.StringSliceVar(&o.addrs, "agents", nil, "make the load with these, which share it, in place of this process: host:port[,host:port...] of loadtest agent")
	f.StringVar(&o.tokenFile, "agent-token-file", "", "`file` with the token that the agents want")
	o.tls.side = "agent-"
	o.tls.addTo(f)
}

// agentsFlagNames are the flags of agentsFlags.
func agentsFlagNames() (names []string) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(agentsFlags).addTo(f)
	f.VisitAll(func(flag *pflag.Flag) { names = append(names, flag.Name) })
	return names
}

// on reports whether agents make the load.
func (o *agentsFlags) on() bool { return len(o.addrs) > 0 }

func (o *agentsFlags) check() error {
	switch {
	case o.on():
		return o.tls.check()
	case o.tokenFile != "":
		return errors.New("--agent-token-file needs --agents")
	case o.tls != tlsFlags{side: o.tls.side}:
		return errors.New("the flags that begin with --agent-tls need --agents")
	}
	return nil
}

// config reads the files. discovery is where each agent finds the nodes.
func (o *agentsFlags) config(discovery string) (cfg agents.Config, err error) {
	cfg = agents.Config{Agents: o.addrs, Discovery: discovery}
	if cfg.Token, err = readToken(o.tokenFile); err != nil {
		return cfg, fmt.Errorf("--agent-token-file: %w", err)
	}
	cfg.TLS, err = o.tls.config()
	return cfg, err
}
