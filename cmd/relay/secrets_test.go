package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"distmsg/engine"
)

// setter notes the secrets that it was given.
type setter [][]byte

func (s *setter) SetSecrets(all engine.Secrets) error { *s = all.Cluster; return nil }

// A file may have several secrets. The node uses the first, and a reload replaces all of them, or
// none if one of them is not good.
func TestReloadSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	former, latter := strings.Repeat("o", 16), strings.Repeat("n", 44)
	write(former + "\n")
	opts := options{secretFile: file}
	s, err := readSecrets(opts, slog.New(slog.DiscardHandler))
	if used, accepted := s.ofCluster(); err != nil || string(used) != former || len(accepted) != 0 {
		t.Fatalf("%q, %q, %v", used, accepted, err)
	}
	var node setter
	p := reloadSecrets(&node, s.cluster, slog.New(slog.DiscardHandler))
	for _, step := range []struct {
		text, want string // of the node, joined; "": as before
		wrong      bool
	}{
		{former + "\n", "", false},
		{former + "\n" + latter + "\n", former + " " + latter, false},
		{latter + "\r\n" + former, latter + " " + former, false},
		{latter + "\nshort\n", "", true},
		{"\n", "", true},
		{latter, latter, false},
		{latter + "\n", "", false},
	} {
		write(step.text)
		commit, err := p.prepare(t.Context(), &opts)
		if (err != nil) != step.wrong || (commit != nil) != (step.want != "") {
			t.Errorf("%q: %v", step.text, err)
		}
		if err != nil && strings.Contains(err.Error(), latter) {
			t.Errorf("the error shows a secret: %v", err)
		}
		if commit != nil {
			commit()
			if got := string(bytes.Join(node, []byte(" "))); got != step.want {
				t.Errorf("%q: %q", step.text, got)
			}
		}
	}
}
