package identity

import (
	"fmt"
	"io"
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
// is wrong, the old one stays in force.
type file[T any] struct {
	path  string
	parse func(text []byte) (T, error)

	value atomic.Pointer[T]

	mu      sync.Mutex
	info    os.FileInfo // of the content that was read last; nil: read it in any case
	trouble error       // of the last reading
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
	value T
	info  os.FileInfo
}

func (f *file[T]) read() (content[T], error) {
	var c content[T]
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
	if c.value, err = f.parse(text); err != nil {
		return c, fmt.Errorf("%s: %w", f.path, err)
	}
	return c, nil
}

// install puts c in force and returns what was in force before (nil: nothing).
func (f *file[T]) install(c content[T]) (old *T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.info, f.trouble = c.info, nil
	return f.value.Swap(&c.value)
}

// look reads the file if it has changed since it was read last. It returns what was in force before
// if there is new content. An error is returned once, and stays in trouble.
func (f *file[T]) look() (old *T, err error) {
	info, err := os.Stat(f.path)
	f.mu.Lock()
	same := err == nil && f.info != nil && os.SameFile(info, f.info) && info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime())
	f.mu.Unlock()
	if same {
		return nil, nil
	}
	var c content[T]
	if err == nil {
		c, err = f.read()
	}
	if err != nil {
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

// troubles says that the file is wrong.
func (f *file[T]) troubles() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == nil {
		return nil
	}
	return []string{"its last good content stays in force: " + f.trouble.Error()}
}
