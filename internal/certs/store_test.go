package certs

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/internal/certs/certstest"
)

// logged is a log that a test can read.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func mustOpen(t *testing.T, f Files) (*Store, *logged) {
	t.Helper()
	log := &logged{}
	s, err := Open(Config{Files: f, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

// leaf returns the common name of the certificate that the store shows.
func (s *Store) leaf() string { return s.now.Load().pair.Leaf.Subject.CommonName }

const changed, unusable = "have changed and are in use", "cannot be used"

// TestLook replaces files one after the other, as a renewal does, and wants the new ones once they
// belong together.
func TestLook(t *testing.T) {
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	first := ca.Issue(t, certstest.Request{CommonName: "first"}).Write(t, dir, "x")
	s, log := mustOpen(t, Files{Cert: first.CertFile, Key: first.KeyFile})
	look := func() { s.look(time.Now()) }
	look()
	look()
	if log.String() != "" {
		t.Fatalf("nothing has changed, and the log says %s", log)
	}

	second := ca.Issue(t, certstest.Request{CommonName: "second"})
	if err := os.WriteFile(first.CertFile, second.CertPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	if s.leaf() != "first" || log.String() != "" {
		t.Errorf("a change counts before it has been the same twice: %s, %s", s.leaf(), log)
	}
	for range 5 {
		look()
	}
	if s.leaf() != "first" || log.count(unusable) != 1 || log.count("does not belong to") != 1 || s.Err() == nil {
		t.Errorf("with a key that belongs to another certificate: %s, %v, the log says %s", s.leaf(), s.Err(), log)
	}
	if err := os.WriteFile(first.KeyFile, second.KeyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	look()
	if s.leaf() != "second" || log.count(changed) != 1 || s.Err() != nil {
		t.Errorf("after the key has come: %s, %v, the log says %s", s.leaf(), s.Err(), log)
	}

	if err := os.Remove(first.CertFile); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		look()
	}
	if s.leaf() != "second" || log.count(unusable) != 2 {
		t.Errorf("without a file: %s, the log says %s", s.leaf(), log)
	}
	second.Write(t, dir, "x") // as before
	look()
	look()
	if s.Err() != nil || s.leaf() != "second" {
		t.Errorf("the files are back: %v, %s", s.Err(), s.leaf())
	}
}

// TestSymlinks swaps a directory under the files, as Kubernetes does it: FILE leads to ..data/FILE,
// and ..data to the directory of a version.
func TestSymlinks(t *testing.T) {
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	version := func(name string) {
		sub := filepath.Join(dir, name)
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		ca.Issue(t, certstest.Request{CommonName: name}).Write(t, sub, "tls")
		ca.Write(t, sub)
		link := filepath.Join(dir, "..data")
		if err := os.Symlink(name, link+"_tmp"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+"_tmp", link); err != nil {
			t.Fatal(err)
		}
	}
	version("one")
	for _, f := range []string{"tls.pem", "tls.key", "ca.pem"} {
		if err := os.Symlink(filepath.Join("..data", f), filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	s, log := mustOpen(t, Files{filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.pem")})
	version("two")
	s.look(time.Now())
	s.look(time.Now())
	if s.leaf() != "two" || log.count(changed) != 1 {
		t.Errorf("%s, the log says %s", s.leaf(), log)
	}
}

// TestRun wants what Run sees, and that it ends with its context.
func TestRun(t *testing.T) {
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	p := ca.Issue(t, certstest.Request{CommonName: "first"}).Write(t, dir, "x")
	s, err := Open(Config{Files: Files{Cert: p.CertFile, Key: p.KeyFile}, Every: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	ca.Issue(t, certstest.Request{CommonName: "second"}).Write(t, dir, "x")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.leaf() != "second" {
		<-tick.C
	}
	stop()
	running.Wait()
}

// TestReload takes what has changed at once, or nothing.
func TestReload(t *testing.T) {
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	p := ca.Issue(t, certstest.Request{CommonName: "first"}).Write(t, dir, "x")
	s, log := mustOpen(t, Files{p.CertFile, p.KeyFile, ca.Write(t, dir)})
	if err := s.Reload(); err != nil || log.String() != "" {
		t.Errorf("nothing has changed: %v, the log says %s", err, log)
	}
	ca.Issue(t, certstest.Request{CommonName: "second"}).Write(t, dir, "x")
	commit, err := s.Prepare()
	if err != nil || commit == nil || s.leaf() != "first" {
		t.Fatalf("prepared: %v, %s is in use", err, s.leaf())
	}
	commit()
	if s.leaf() != "second" {
		t.Errorf("committed, and %s is in use", s.leaf())
	}

	ca.Issue(t, certstest.Request{CommonName: "third"}).Write(t, dir, "x")
	if err := os.WriteFile(s.cfg.CA, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), s.cfg.CA) || s.leaf() != "second" {
		t.Errorf("with a bad CA: %v, %s is in use", err, s.leaf())
	}
	for range 3 {
		s.look(time.Now())
	}
	if log.count(unusable) != 0 {
		t.Errorf("what Reload has returned is logged, too: %s", log)
	}
}

// TestOpenExplains wants errors that name the file and say what is wrong in it.
func TestOpenExplains(t *testing.T) {
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	p := ca.Issue(t, certstest.Request{}).Write(t, dir, "x")
	other := ca.Issue(t, certstest.Request{}).Write(t, dir, "other")
	file := func(name string, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cutOff := string(ca.PEM) + string(ca.PEM[:len(ca.PEM)/2])
	encrypted := "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
	damaged := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	for _, tc := range []struct {
		files Files
		want  []string
	}{
		{Files{Cert: p.CertFile}, []string{"needs its key"}},
		{Files{Key: p.KeyFile}, []string{"needs its key"}},
		{Files{Cert: filepath.Join(dir, "absent"), Key: p.KeyFile}, []string{"the certificate cannot be read", "absent"}},
		{Files{CA: filepath.Join(dir, "absent")}, []string{"the CA cannot be read", "absent"}},
		{Files{Cert: p.KeyFile, Key: p.CertFile}, []string{p.KeyFile, "only PRIVATE KEY"}},
		{Files{Cert: p.CertFile, Key: p.CertFile}, []string{"key in " + p.CertFile, "only CERTIFICATE"}},
		{Files{Cert: p.CertFile, Key: other.KeyFile}, []string{other.KeyFile, "does not belong to", p.CertFile}},
		{Files{Cert: p.CertFile, Key: file("enc", encrypted)}, []string{"enc", "it is encrypted"}},
		{Files{Cert: file("damaged", damaged), Key: p.KeyFile}, []string{"certificate 1 of the file is damaged"}},
		{Files{CA: file("empty", " \n")}, []string{"the file is empty"}},
		{Files{CA: file("der", "\x30\x82")}, []string{"the file is not PEM"}},
		{Files{CA: file("cut", cutOff)}, []string{"1 of its 2 PEM blocks are damaged or cut off"}},
		{Files{CA: p.KeyFile}, []string{"the CA in " + p.KeyFile, "only PRIVATE KEY"}},
	} {
		_, err := Open(Config{Files: tc.files})
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", tc.files, err, want)
			}
		}
	}
}

// TestEnding wants a line in the log for each certificate that has to be renewed, once a day.
func TestEnding(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		from, until time.Duration // from now
		want        string
	}{
		{-time.Hour, 24 * time.Hour, ""},
		{-23 * time.Hour, time.Hour, "it ends in 1h0m"},
		{-time.Hour, 31 * 24 * time.Hour, ""},
		{-300 * 24 * time.Hour, 29 * 24 * time.Hour, "it ends in 696h0m"},
		{-2 * time.Hour, -time.Hour, "it has expired"},
		{time.Hour, 2 * time.Hour, "it is not valid before"},
	} {
		dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
		p := ca.Issue(t, certstest.Request{NotBefore: now.Add(tc.from), NotAfter: now.Add(tc.until)}).Write(t, dir, "x")
		s, log := mustOpen(t, Files{Cert: p.CertFile, Key: p.KeyFile})
		lines := s.Ending(now)
		if (len(lines) > 0) != (tc.want != "") || len(lines) > 0 && !strings.Contains(lines[0], tc.want) {
			t.Errorf("%v to %v: %q, want %q", tc.from, tc.until, lines, tc.want)
		}
		s.remind(now.Add(time.Minute))
		if n := log.count("has to be renewed"); n != len(lines) {
			t.Errorf("%v to %v: %d lines, the log says %s", tc.from, tc.until, n, log)
		}
		s.remind(now.Add(25 * time.Hour))
		if n := log.count("has to be renewed"); n != max(2*len(lines), len(s.Ending(now.Add(25*time.Hour)))) {
			t.Errorf("%v to %v: %d lines a day later, the log says %s", tc.from, tc.until, n, log)
		}
	}
}

func TestCheckName(t *testing.T) {
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	p := ca.Issue(t, certstest.Request{Names: []string{"n1.example.com", "10.0.0.1"}}).Write(t, dir, "x")
	s, _ := mustOpen(t, Files{Cert: p.CertFile, Key: p.KeyFile})
	for host, good := range map[string]bool{"n1.example.com": true, "10.0.0.1": true, "n2.example.com": false, "10.0.0.2": false} {
		if err := s.CheckName(host); (err == nil) != good {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// TestReadableKey warns of a key that everybody can read.
func TestReadableKey(t *testing.T) {
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	p := ca.Issue(t, certstest.Request{}).Write(t, dir, "x")
	if err := os.Chmod(p.KeyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, log := mustOpen(t, Files{Cert: p.CertFile, Key: p.KeyFile}); log.count("everybody on this machine") != 1 {
		t.Errorf("the log says %s", log)
	}
}
