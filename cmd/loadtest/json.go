package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"distmsg/loadtest"
)

// jsonFile is the file for the report as JSON. It is opened before the run, so that a bad path is
// reported before the run and not after it. The zero value means no file.
type jsonFile struct {
	file *os.File
	made bool // we have created it, and remove it if there is no report
}

// openJSON opens the file that the path names, and does not change its content yet.
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

// write replaces the content of the file by the report.
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
