package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// outFile is a file for a result. It is opened before the run, so that a bad path is reported
// before the run and not after it. The zero value means no file.
type outFile struct {
	file *os.File
	made bool // we have created it, and remove it if there is nothing to write
}

// openOut opens the file that a flag names, and does not change its content yet.
func openOut(flag, path string) (*outFile, error) {
	if path == "" {
		return new(outFile), nil
	}
	_, err := os.Stat(path)
	made := errors.Is(err, fs.ErrNotExist)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return &outFile{file, made}, nil
}

// begin empties the file, so that its content can be written.
func (o *outFile) begin() (io.Writer, error) {
	o.made = false
	if info, err := o.file.Stat(); err == nil && info.Mode().IsRegular() {
		if err := o.file.Truncate(0); err != nil {
			return nil, err
		}
	}
	return o.file, nil
}

// write replaces the content of the file, if there is a file.
func (o *outFile) write(content func(io.Writer) error) error {
	if o.file == nil {
		return nil
	}
	w, err := o.begin()
	if err != nil {
		return err
	}
	return content(w)
}

// writeJSON replaces the content of the file by v.
func (o *outFile) writeJSON(v any) error {
	return o.write(func(w io.Writer) error {
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		_, err = w.Write(append(data, '\n'))
		return err
	})
}

func (o *outFile) close() {
	if o.file == nil {
		return
	}
	o.file.Close()
	if o.made {
		os.Remove(o.file.Name())
	}
}

// refuseSameFile returns an error if two flags name one file, because the later output would
// replace the other, or what was read.
func refuseSameFile(flags *pflag.FlagSet) error {
	by := make(map[string]string)
	for _, name := range []string{"scenario", "report", "out", "json", "html", "csv", "hdr", "svg"} {
		flag := flags.Lookup(name)
		if flag == nil || flag.Value.String() == "" {
			continue
		}
		path, err := filepath.Abs(flag.Value.String())
		if err != nil || strings.HasPrefix(path, "/dev/") { // several outputs may go there
			continue
		}
		if other := by[path]; other != "" {
			return fmt.Errorf("--%s and --%s name the same file, %s: give each a file of its own", other, name, flag.Value)
		}
		by[path] = name
	}
	return nil
}
