package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"distmsg/engine"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fakeClock is a clock that stands until it is moved.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *fakeClock {
	return &fakeClock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func login(credentials string) engine.Login { return engine.Login{Credentials: []byte(credentials)} }

func no() *bool { return new(bool) }

// tokenFile is a token file that tests edit.
type tokenFile struct {
	t    *testing.T
	path string
}

func newTokenFile(t *testing.T) tokenFile {
	return tokenFile{t, filepath.Join(t.TempDir(), "tokens")}
}

func (f tokenFile) add(name string, rights Rights, expires time.Time) string {
	f.t.Helper()
	token, line, err := NewToken(name, rights, expires)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := AddToken(f.path, line); err != nil {
		f.t.Fatal(err)
	}
	return token
}

func (f tokenFile) open(clock *fakeClock, revoked func([]string)) *Tokens {
	f.t.Helper()
	tokens, err := NewTokens(TokensConfig{Path: f.path, Now: clock.Now, Logger: quiet, Revoked: revoked})
	if err != nil {
		f.t.Fatal(err)
	}
	return tokens
}

func TestTokens(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	alice := f.add("alice", Rights{IDs: Patterns{"alice", "alice:*"}, Lookup: no()}, time.Time{})
	brief := f.add("brief", Rights{IDs: Patterns{}, Watch: no()}, clock.Now().Add(time.Hour))
	free := f.add("free", Rights{}, time.Time{})
	tokens := f.open(clock, nil)

	for _, tc := range []struct {
		token string
		want  engine.Identity
	}{
		{alice, engine.Identity{Name: "alice", IDs: []string{"alice", "alice:*"}, NoLookup: true}},
		{brief, engine.Identity{Name: "brief", IDs: []string{}, NoWatch: true, Expires: clock.Now().Add(time.Hour)}},
		{free, engine.Identity{Name: "free"}},
	} {
		for range 2 { // the second time without a hash
			got, err := tokens.Authenticate(t.Context(), login(tc.token))
			if err != nil || !same(got, tc.want) {
				t.Errorf("%s: got %+v, %v, want %+v", tc.want.Name, got, err, tc.want)
			}
		}
	}

	clock.forward(time.Hour)
	flipped := []byte(alice)
	flipped[len(flipped)-1] ^= 1
	otherSecret := alice[:len(tokenPrefix)+keyLen] + free[len(tokenPrefix)+keyLen:]
	for name, tc := range map[string]struct {
		token string
		want  error
	}{
		"expired":                 {brief, ErrDenied},
		"wrong at the end":        {string(flipped), ErrDenied},
		"secret of another token": {otherSecret, ErrDenied},
		"cut off":                 {alice[:len(alice)-1], ErrDenied},
		"too long":                {alice + "x", ErrDenied},
		"prefix only":             {tokenPrefix, ErrDenied},
		"unknown key":             {tokenPrefix + "000000000000" + alice[len(tokenPrefix)+keyLen:], ErrDenied},
		"none":                    {"", ErrNotMine},
		"something else":          {"password", ErrNotMine},
	} {
		got, err := tokens.Authenticate(t.Context(), login(tc.token))
		if !errors.Is(err, tc.want) || !same(got, engine.Identity{}) {
			t.Errorf("%s: got %+v, %v, want %v", name, got, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), alice[len(alice)-8:]) {
			t.Errorf("%s: the error has the secret: %v", name, err)
		}
	}
}

func same(a, b engine.Identity) bool {
	return a.Name == b.Name && slices.Equal(a.IDs, b.IDs) && (a.IDs == nil) == (b.IDs == nil) &&
		a.NoLookup == b.NoLookup && a.NoWatch == b.NoWatch && a.Limits == b.Limits && a.Expires.Equal(b.Expires)
}

func TestTokenOfBcrypt(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	token, line, err := NewToken("old", Rights{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := splitToken([]byte(token))
	sum, err := bcrypt.GenerateFromPassword(secret, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	line.Hash = string(sum)
	if err := AddToken(f.path, line); err != nil {
		t.Fatal(err)
	}
	tokens := f.open(clock, nil)
	if who, err := tokens.Authenticate(t.Context(), login(token)); err != nil || who.Name != "old" {
		t.Errorf("got %+v, %v", who, err)
	}
	if _, err := tokens.Authenticate(t.Context(), login(token[:len(token)-1]+"!")); !errors.Is(err, ErrDenied) {
		t.Errorf("a wrong secret: %v", err)
	}
}

// countedHash counts the checks, and those at the same time.
type countedHash struct {
	mu            sync.Mutex
	checks        int
	running, most int
	right         string
	release       chan struct{} // nil: checks end at once
}

func (h *countedHash) matches(secret []byte) bool {
	h.mu.Lock()
	h.checks++
	h.running++
	h.most = max(h.most, h.running)
	h.mu.Unlock()
	if h.release != nil {
		<-h.release
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running--
	return string(secret) == h.right
}

// After a restart, everybody comes with the same token: one hash is enough. It is trusted for a
// while only.
func TestManyClientsWithOneToken(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	token := f.add("all", Rights{}, time.Time{})
	key, secret, _ := splitToken([]byte(token))
	tokens := f.open(clock, nil)
	counted := &countedHash{right: string(secret), release: make(chan struct{})}
	tokens.file.get().byKey[key].hash = counted

	const clients = 1000
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			if _, err := tokens.Authenticate(t.Context(), login(token)); err != nil {
				t.Error(err)
			}
		})
	}
	close(counted.release)
	all.Wait()
	if counted.checks != 1 {
		t.Errorf("%d hashes for %d clients, want 1", counted.checks, clients)
	}
	clock.forward(trustTime)
	if _, err := tokens.Authenticate(t.Context(), login(token)); err != nil || counted.checks != 2 {
		t.Errorf("%v, %d hashes after the time of trust, want 2", err, counted.checks)
	}
}

func TestFewHashesAtOnce(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	const tokens = 16
	given := make([]string, tokens)
	for i := range given {
		given[i] = f.add("many", Rights{}, time.Time{})
	}
	all := f.open(clock, nil)
	all.places = make(chan struct{}, 2)
	counted := &countedHash{release: make(chan struct{})}
	for _, e := range all.file.get().order {
		e.hash = counted
	}
	var ended sync.WaitGroup
	for _, token := range given {
		ended.Go(func() { all.Authenticate(t.Context(), login(token)) })
	}
	for range tokens {
		counted.release <- struct{}{}
	}
	ended.Wait()
	if counted.most > 2 || counted.checks != tokens {
		t.Errorf("%d hashes at once, %d in total, want at most 2 and %d", counted.most, counted.checks, tokens)
	}

	// Who does not get a place in time, hears that it should come again.
	all.places <- struct{}{}
	all.places <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all.Authenticate(ctx, login(given[0])); !errors.Is(err, engine.ErrRetryLogin) || errors.Is(err, ErrDenied) {
		t.Errorf("without a place: %v, want retry", err)
	}
}

func TestTokenFileChanges(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	f.add("stays", Rights{}, time.Time{})
	leaves := f.add("leaves", Rights{}, time.Time{})
	var revoked [][]string
	tokens := f.open(clock, func(names []string) { revoked = append(revoked, names) })
	settle(tokens.look)
	if len(revoked) > 0 {
		t.Errorf("revoked %q without a change", revoked)
	}

	comes := f.add("comes", Rights{}, time.Time{})
	settle(tokens.look)
	if _, err := tokens.Authenticate(t.Context(), login(comes)); err != nil || len(revoked) > 0 {
		t.Errorf("a new token: %v, revoked %q", err, revoked)
	}

	if _, err := tokens.Authenticate(t.Context(), login(leaves)); err != nil {
		t.Error(err)
	}
	if removed, err := RemoveToken(f.path, "leaves"); err != nil || removed.Name != "leaves" {
		t.Fatalf("removed %+v, %v", removed, err)
	}
	settle(tokens.look)
	if _, err := tokens.Authenticate(t.Context(), login(leaves)); !errors.Is(err, ErrDenied) {
		t.Errorf("a removed token that was checked before: %v", err)
	}
	if key, _, _ := splitToken([]byte(comes)); tokens.file.get().byKey[key].checked.Load() == nil {
		t.Error("a token that has not changed needs a new hash")
	}
	if len(revoked) != 1 || !slices.Equal(revoked[0], []string{"leaves"}) {
		t.Errorf("revoked %q, want leaves", revoked)
	}

}

// A file that is written in place is for a moment cut off, or empty. Nobody loses a token then.
func TestTokenFileIsBeingWritten(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	f.add("first", Rights{}, time.Time{})
	token := f.add("second", Rights{}, time.Time{})
	var revoked [][]string
	tokens := f.open(clock, func(names []string) { revoked = append(revoked, names) })
	whole, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 0; size < len(whole); size += 7 {
		if err := os.WriteFile(f.path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		tokens.look()
		if _, err := tokens.Authenticate(t.Context(), login(token)); err != nil || len(revoked) > 0 || len(tokens.troubles()) > 0 {
			t.Fatalf("with %d of %d bytes: %v, revoked %q, troubles %q", size, len(whole), err, revoked, tokens.troubles())
		}
	}
	if err := os.WriteFile(f.path, append(whole, "# end\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	settle(tokens.look)
	if len(revoked) > 0 || len(tokens.troubles()) > 0 {
		t.Errorf("whole again: revoked %q, troubles %q", revoked, tokens.troubles())
	}
}

// An empty file is one that was lost. A file without tokens has a comment.
func TestTokenFileIsEmptied(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	token := f.add("alice", Rights{}, time.Time{})
	tokens := f.open(clock, nil)
	f.write([]byte(" \n"))
	settle(tokens.look)
	if _, err := tokens.Authenticate(t.Context(), login(token)); err != nil || len(tokens.troubles()) != 1 {
		t.Errorf("with an empty file: %v, troubles %q", err, tokens.troubles())
	}
	if _, err := tokens.prepare(); err == nil {
		t.Error("an empty file was prepared")
	}
	if _, err := NewTokens(TokensConfig{Path: f.path}); err == nil {
		t.Error("an empty file was opened")
	}

	alice := f.add("alice", Rights{}, time.Time{})
	settle(tokens.look)
	if _, err := RemoveToken(f.path, "alice"); err != nil {
		t.Fatal(err)
	}
	settle(tokens.look)
	if _, err := tokens.Authenticate(t.Context(), login(alice)); !errors.Is(err, ErrDenied) || len(tokens.troubles()) > 0 {
		t.Errorf("the last token was removed: %v, troubles %q", err, tokens.troubles())
	}
	f.add("bob", Rights{}, time.Time{})
	settle(tokens.look)
	if n := len(tokens.file.get().order); n != 1 {
		t.Errorf("%d tokens after another was added, want 1", n)
	}
}

// Other rights are a revocation, too. Wrong content changes nothing, until it is right again.
func TestTokenFileIsWrong(t *testing.T) {
	f, clock := newTokenFile(t), newClock()
	f.add("stays", Rights{}, time.Time{})
	token := f.add("other", Rights{}, time.Time{})
	var revoked [][]string
	tokens := f.open(clock, func(names []string) { revoked = append(revoked, names) })
	good, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.write(append(bytes.Clone(good), "{\"key\":\n"...))
	settle(tokens.look)
	if troubles := tokens.troubles(); len(troubles) != 1 || !strings.Contains(troubles[0], "line 3: ") {
		t.Errorf("troubles %q, want line 3", troubles)
	}
	if _, err := tokens.Authenticate(t.Context(), login(token)); err != nil {
		t.Errorf("with a wrong file: %v", err)
	}
	if _, err := tokens.prepare(); err == nil {
		t.Error("a wrong file was prepared")
	}
	f.write(bytes.Replace(good, []byte(`"name":"stays"`), []byte(`"name":"stays","ids":["a"]`), 1))
	commit, err := tokens.prepare()
	if err != nil {
		t.Fatal(err)
	}
	if len(revoked) != 0 {
		t.Error("a change was in force before it was committed")
	}
	commit()
	if len(revoked) != 1 || !slices.Equal(revoked[0], []string{"stays"}) || len(tokens.troubles()) > 0 {
		t.Errorf("revoked %q, want stays; troubles %q", revoked, tokens.troubles())
	}
}

// settle looks at a file twice, because what has changed is in force when it was seen twice.
func settle(look func()) {
	look()
	look()
}

func (f tokenFile) write(text []byte) {
	f.t.Helper()
	writeFile(f.t, f.path, string(text))
}

// writeFile replaces a file as a whole.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestBadTokenLines(t *testing.T) {
	_, line, err := NewToken("alice", Rights{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	good := string(line.text())
	change := func(from, to string) string {
		changed := strings.Replace(good, from, to, 1)
		if changed == good {
			t.Fatalf("%s is not in %s", from, good)
		}
		return changed
	}
	for name, tc := range map[string]struct{ text, want string }{
		"no JSON":          {"alice", "not JSON"},
		"two objects":      {strings.TrimSpace(good) + strings.TrimSpace(change(line.Key, "000000000000")), "after the object"},
		"unknown field":    {change(`"name"`, `"id":["a"],"name"`), "unknown field"},
		"no key":           {change(line.Key, ""), "key is not"},
		"key in capitals":  {change(line.Key, "ABCDEFABCDEF"), "key is not"},
		"no name":          {change("alice", ""), "name is empty"},
		"name with a line": {change("alice", `a\nb`), "cannot be printed"},
		"ids null":         {change(`"name"`, `"ids":null,"name"`), "ids is null"},
		"ids a text":       {change(`"name"`, `"ids":"a","name"`), "ids is not a list"},
		"null in ids":      {change(`"name"`, `"ids":["a",null],"name"`), "null"},
		"lookup null":      {change(`"name"`, `"lookup":null,"name"`), "null"},
		"watch null":       {change(`"name"`, `"watch":null,"name"`), "null"},
		"watch null again": {change(`"name"`, `"watch":false,"Watch":null,"name"`), "null"},
		"limits null":      {change(`"name"`, `"limits":null,"name"`), "null"},
		"a limit null":     {change(`"name"`, `"limits":{"bound_ids":null},"name"`), "null"},
		"expires null":     {change(`"name"`, `"expires":null,"name"`), "null"},
		"star inside":      {change(`"name"`, `"ids":["a*b"],"name"`), "at the end only"},
		"empty pattern":    {change(`"name"`, `"ids":[""],"name"`), "empty pattern"},
		"unknown limit":    {change(`"name"`, `"limits":{"fun":1},"name"`), `"fun"`},
		"the same key":     {good + good, "earlier line"},
		"plain text":       {change(line.Hash, "secret"), "neither"},
		"other argon":      {change("argon2id", "argon2i"), "neither"},
		"huge memory":      {change("m=1024", "m=999999999"), "may have"},
		"no time":          {change("t=1", "t=0"), "may have"},
		"odd parameters":   {change("t=1", "t=01"), "no parameters"},
		"short sum":        {change(line.Hash[len(line.Hash)-40:], ""), "too short"},
		"bcrypt":           {change(line.Hash, "$2b$10$x"), "bcrypt"},
		"costly bcrypt":    {change(line.Hash, "$2b$31$"+strings.Repeat("a", 53)), "cost of 31"},
	} {
		_, err := ParseTokenFile([]byte("# tokens\n\n" + tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "line ") {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
		if err != nil && len(line.Hash) > 0 && strings.Contains(err.Error(), line.Hash[30:]) {
			t.Errorf("%s: the error has the hash: %v", name, err)
		}
	}
}

func TestEditsOfTokenFile(t *testing.T) {
	f := newTokenFile(t)
	if err := os.WriteFile(f.path, []byte("# ours"), 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(f.path, link); err != nil {
		t.Fatal(err)
	}
	const writers = 8
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			_, line, err := NewToken("twin", Rights{}, time.Time{})
			if err == nil {
				err = AddToken(link, line)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := ParseTokenFile(text)
	if err != nil || len(lines) != writers || !bytes.HasPrefix(text, []byte("# ours\n")) {
		t.Fatalf("%d lines, %v, in:\n%s", len(lines), err, text)
	}
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v, want that of before", info.Mode(), err)
	}
	if _, err := RemoveToken(link, "twin"); err == nil || !strings.Contains(err.Error(), lines[0].Key) {
		t.Errorf("removed by a name that several have: %v", err)
	}
	if _, err := RemoveToken(link, "nobody"); err == nil {
		t.Error("removed a token that is not there")
	}
	if removed, err := RemoveToken(link, lines[3].Key); err != nil || removed.Key != lines[3].Key {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is one no more: %v, %v", info.Mode(), err)
	}
	left, err := os.ReadFile(f.path)
	if err != nil || !bytes.Equal(left, bytes.Replace(text, lines[3].text(), nil, 1)) {
		t.Errorf("%v, left:\n%s", err, left)
	}
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v beside the file", err, entries)
	}
}

func FuzzTokenFile(f *testing.F) {
	token, line, err := NewToken("alice", Rights{IDs: Patterns{"a*"}, Lookup: no()}, time.Unix(1<<31, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line.text(), token)
	f.Add([]byte("# nothing\n\n"), "dmt_")
	f.Fuzz(func(t *testing.T, text []byte, token string) {
		splitToken([]byte(token))
		lines, err := ParseTokenFile(text)
		if err != nil {
			return
		}
		var again []byte
		for _, l := range lines {
			again = append(again, l.text()...)
		}
		if back, err := ParseTokenFile(again); err != nil || len(back) != len(lines) {
			t.Errorf("what was read is written as %q: %v", again, err)
		}
	})
}

// What a login costs: a token that is checked for the first time, and one that is trusted.
func BenchmarkToken(b *testing.B) {
	token, line, err := NewToken("alice", Rights{}, time.Time{})
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "tokens")
	if err := AddToken(path, line); err != nil {
		b.Fatal(err)
	}
	tokens, err := NewTokens(TokensConfig{Path: path, Now: time.Now, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	for _, trusted := range []bool{false, true} {
		b.Run(fmt.Sprintf("trusted=%v", trusted), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !trusted {
					tokens.file.get().byKey[line.Key].checked.Store(nil)
				}
				if _, err := tokens.Authenticate(b.Context(), login(token)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
