package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// AddToken appends a line to a token file, and creates the file if there is none.
func AddToken(path string, line TokenLine) error {
	return editFile(path, true, func(text []byte) ([]byte, error) {
		if len(text) > 0 && text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		text = append(text, line.text()...)
		_, err := parseTokens(text)
		return text, err
	})
}

// RemoveToken removes the line with this key from a token file. which may also be a name, if only
// one token has it. Other lines stay as they are.
func RemoveToken(path, which string) (removed TokenLine, err error) {
	err = editFile(path, false, func(text []byte) ([]byte, error) {
		set, err := parseTokens(text)
		if err != nil {
			return nil, err
		}
		if removed, err = set.find(which); err != nil {
			return nil, err
		}
		var kept []byte
		for raw := range bytes.Lines(text) {
			line := bytes.TrimSpace(raw)
			if len(line) > 0 && line[0] != '#' {
				entry, err := parseTokenLine(line)
				if err != nil {
					return nil, err
				}
				if entry.line.Key == removed.Key {
					continue
				}
			}
			kept = append(kept, raw...)
		}
		if len(bytes.TrimSpace(kept)) == 0 { // nodes take an empty file for one that was lost
			kept = []byte("# lines of relay token add\n")
		}
		return kept, nil
	})
	return removed, err
}

// find returns the line with this key, or else the only one with this name.
func (s *tokenSet) find(which string) (TokenLine, error) {
	if e := s.byKey[which]; e != nil {
		return e.line, nil
	}
	named := slices.DeleteFunc(s.lines(), func(l TokenLine) bool { return l.Name != which })
	switch len(named) {
	case 0:
		return TokenLine{}, fmt.Errorf("no token has the key or the name %q", which)
	case 1:
		return named[0], nil
	}
	keys := make([]string, len(named))
	for i, l := range named {
		keys[i] = l.Key
	}
	return TokenLine{}, fmt.Errorf("%d tokens have the name %q: remove them by key (%s)", len(named), which, strings.Join(keys, ", "))
}

// editFile replaces the content of a file as one step. Whoever reads it meanwhile gets the old
// content or the new one. Two edits at the same time follow each other.
func editFile(path string, create bool, edit func(text []byte) ([]byte, error)) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := lockFile(path, create)
	if err != nil {
		return err
	}
	defer f.Close() // and with that unlocks it
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if text, err = edit(text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return replaceFile(path, text, info)
}

// lockFile opens and locks the file that path names once it is locked.
func lockFile(path string, create bool) (*os.File, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return nil, errors.Join(fmt.Errorf("%s cannot be locked: %w", path, err), f.Close())
		}
		mine, err1 := f.Stat()
		now, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			return f, nil
		}
		f.Close() // another edit has replaced it meanwhile
		if err := errors.Join(err1, err2); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

// replaceFile writes a new file beside path and puts it in its place, with the mode and the owner
// of the old one.
func replaceFile(path string, text []byte, old os.FileInfo) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(old.Mode().Perm()), keepOwner(f, old), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// keepOwner gives f the owner of old, which may be another user than the one who edits.
func keepOwner(f *os.File, old os.FileInfo) error {
	stat, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() && int(stat.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(stat.Uid), int(stat.Gid))
}
