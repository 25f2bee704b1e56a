package compare

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"distmsg/internal/proc"
)

// Programs are the files of the servers.
type Programs struct {
	// Floor is a command with its first arguments that runs the floor, usually this program.
	Floor []string
	// Relay is our node. Default: built from the repository that the working directory is in.
	Relay string
	// NATS is nats-server. Default: built from the version that tools/go.mod names.
	NATS string
	// Redis is redis-server. Default: the one in PATH.
	Redis string
}

// find fills in the programs that the shapes need. It builds them in dir.
func (p *Programs) find(ctx context.Context, shapes []shape, dir string, say func(format string, args ...any)) (err error) {
	needs := func(peer string) bool {
		return slices.ContainsFunc(shapes, func(s shape) bool {
			return slices.ContainsFunc(s.servers, func(server string) bool { return kind(server) == peer })
		})
	}
	cluster := slices.ContainsFunc(shapes, func(s shape) bool { return slices.Contains(s.servers, twoNodes) })
	if (needs(redis) || cluster) && p.Redis == "" {
		if p.Redis, err = exec.LookPath("redis-server"); err != nil {
			return fmt.Errorf("%w: install Debian's package redis-server, name the program with --redis-server, or leave it out with --peers", err)
		}
	}
	if needs(node) && p.Relay == "" {
		say("building our node")
		if err := proc.Build(ctx, dir, "./cmd/relay"); err != nil {
			return fmt.Errorf("cannot build our node: %w: run this in a clone of the repository, or name the program with --relay", err)
		}
		p.Relay = filepath.Join(dir, "relay")
	}
	if needs(nats) && p.NATS == "" {
		say("building nats-server (a minute or two when it is built for the first time)")
		if err := proc.BuildTool(ctx, dir, natsPackage); err != nil {
			return fmt.Errorf("cannot build nats-server: %w: run this in a clone of the repository, name the program with --nats-server, or leave it out with --peers", err)
		}
		p.NATS = filepath.Join(dir, "nats-server")
	}
	for _, file := range []string{p.Relay, p.NATS, p.Redis} {
		if _, err := os.Stat(file); file != "" && err != nil {
			return err
		}
	}
	return nil
}

const natsPackage = "github.com/nats-io/nats-server/v2"

// version returns what a server calls its version, or nothing.
func (p *Programs) version(ctx context.Context, server string) string {
	program := map[string]string{node: p.Relay, redis: p.Redis, nats: p.NATS}[kind(server)]
	if program == "" {
		return ""
	}
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return ""
	}
	// such as "Redis server v=7.0.15 sha=…" and "nats-server: v2.15.2"
	for word := range strings.FieldsSeq(string(out)) {
		word = strings.TrimPrefix(word, "v=")
		if digits := strings.TrimPrefix(word, "v"); digits != "" && digits[0] >= '0' && digits[0] <= '9' {
			return digits
		}
	}
	return ""
}
