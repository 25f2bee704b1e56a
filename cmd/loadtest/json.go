package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"distmsg/loadtest"
)

// jsonFile is where the report goes as JSON. It is opened before the run, so that a path that
// cannot be written to costs no run. The zero value is none.
type jsonFile struct {
	file *os.File
	made bool // by us: it goes away again if there is no report
}

// openJSON opens a file, or whatever the path names, and changes nothing in it yet.
func openJSON(path string) (*jsonFile, error) {
	if path == "" {
		return new(jsonFile), nil
	}
	_, err := os.Stat(path)
	made := errors.Is(err, fs.ErrNotExist)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--json: %w", err)
	}
	return &jsonFile{file, made}, nil
}

// write replaces what was in the file by the report.
func (j *jsonFile) write(report *loadtest.Report) error {
	if j.file == nil {
		return nil
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	j.made = false
	if info, err := j.file.Stat(); err == nil && info.Mode().IsRegular() {
		if err := j.file.Truncate(0); err != nil {
			return err
		}
	}
	_, err = j.file.Write(append(data, '\n'))
	return err
}

func (j *jsonFile) close() {
	if j.file == nil {
		return
	}
	j.file.Close()
	if j.made {
		os.Remove(j.file.Name())
	}
}
