package identity

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxFile    = 64 << 20        // bytes of a file
	lookPeriod = 2 * time.Second // how often a file is looked at
)

// file is a file whose content is parsed, and parsed again when it changes. While the new content
// is wrong, the old one stays in force. So it does while somebody writes the file: a change counts
// when two looks in a row have seen the same.
type file[T any] struct {
	path  string
	parse func(text []byte) (T, error)

	value atomic.Pointer[T]

	mu      sync.Mutex
	info    os.FileInfo // of the content that was taken or refused last; nil: read it in any case
	trouble error       // why that was refused; nil if it was taken
	seen    sighting    // of the last look, if that found a change
}

// sighting is what one look at a file has found.
type sighting struct {
	info os.FileInfo       // nil: the file could not be read
	sum  [sha256.Size]byte // of the text, or of the error
}

func (s sighting) same(other sighting) bool {
	return s.sum == other.sum && (s.info == nil && other.info == nil || sameFile(s.info, other.info))
}

// sameFile reports whether a file has not changed between two looks, as far as these tell.
func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// openFile reads and parses the file.
func openFile[T any](path string, parse func([]byte) (T, error)) (*file[T], error) {
	f := &file[T]{path: path, parse: parse}
	next, err := f.read()
	if err != nil {
		return nil, err
	}
	f.install(next)
	return f, nil
}

// get returns the value in force. It does not block.
func (f *file[T]) get() T { return *f.value.Load() }

// content is a file that was read.
type content[T any] struct {
	sighting
	value T
}

func (f *file[T]) read() (content[T], error) {
	c, err := f.readAndParse()
	if err != nil {
		c.sum = sha256.Sum256(append(c.sum[:], err.Error()...))
	}
	return c, err
}

func (f *file[T]) readAndParse() (c content[T], err error) {
	r, err := os.Open(f.path)
	if err != nil {
		return c, err
	}
	defer r.Close()
	if c.info, err = r.Stat(); err != nil {
		return c, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return c, err
	}
	if len(text) > maxFile {
		return c, fmt.Errorf("%s has more than %d bytes", f.path, maxFile)
	}
	c.sum = sha256.Sum256(text)
	if c.value, err = f.parse(text); err != nil {
		return c, fmt.Errorf("%s: %w", f.path, err)
	}
	return c, nil
}

// install puts c in force and returns what was in force before (nil: nothing).
func (f *file[T]) install(c content[T]) (old *T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.info, f.trouble, f.seen = c.info, nil, sighting{}
	return f.value.Swap(&c.value)
}

// look reads the file if it has changed. What it finds counts if the look before has found the
// same. Then it returns what was in force before if there is new content. An error is returned
// once, and stays in trouble.
func (f *file[T]) look() (old *T, err error) {
	info, err := os.Stat(f.path)
	f.mu.Lock()
	same := err == nil && sameFile(info, f.info)
	f.mu.Unlock()
	if same {
		return nil, nil
	}
	c, err := f.read()
	f.mu.Lock()
	settled := c.same(f.seen)
	f.seen = c.sighting
	f.mu.Unlock()
	switch {
	case !settled:
		return nil, nil
	case err != nil:
		return nil, f.failed(c.info, err)
	}
	return f.install(c), nil
}

// failed notes that the file is wrong, and returns err if that is news.
func (f *file[T]) failed(info os.FileInfo, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.trouble != nil && f.trouble.Error() == err.Error()
	f.info, f.trouble = info, err
	if known {
		return nil
	}
	return err
}

// check looks at the file. If there is new content, it calls changed with what was in force before.
// If the content is wrong, it logs the complaint once.
func (f *file[T]) check(logger *slog.Logger, complaint string, changed func(old T)) {
	old, err := f.look()
	switch {
	case err != nil:
		logger.Error(complaint, "error", err)
	case old != nil:
		changed(*old)
	}
}

// prepare reads the file. commit puts the content in force, and calls changed with what was in
// force before. Without a file there is nothing to do.
func (f *file[T]) prepare(changed func(old T)) (commit func(), err error) {
	if f == nil {
		return func() {}, nil
	}
	next, err := f.read()
	if err != nil {
		return nil, err
	}
	return func() { changed(*f.install(next)) }, nil
}

// unnoticed is for content whose change nobody has to hear of.
func unnoticed[T any](T) {}

// troubles says that the file is wrong.
func (f *file[T]) troubles() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == nil {
		return nil
	}
	return []string{"its last good content stays in force: " + f.trouble.Error()}
}
