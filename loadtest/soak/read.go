package soak

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"distmsg/loadtest/result"
)

// Read reads the file of a soak, and judges it. A last line without its end is left out. maxShare,
// if not nil, takes the place of what the file says.
func Read(from io.Reader, maxShare *float64) (*result.Soak, error) {
	s := new(result.Soak)
	reader := bufio.NewReader(from)
	for number := 1; ; number++ {
		data, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			s.Cut = len(data) > 0
			break
		}
		if err != nil {
			return nil, err
		}
		var l line
		if err := json.Unmarshal(data, &l); err != nil {
			return nil, fmt.Errorf("line %d is not that of a soak: %w", number, err)
		}
		switch {
		case number == 1 && (l.Header == nil || l.Header.Schema != result.SchemaSoak):
			return nil, fmt.Errorf("line 1 is not that of a soak: want the schema %s", result.SchemaSoak)
		case l.Header != nil:
			s.SoakHeader = *l.Header
		case l.Sample != nil:
			s.Samples = append(s.Samples, *l.Sample)
		case l.End != nil:
			s.End = l.End
		}
	}
	if s.Schema == "" {
		return nil, errors.New("this is not the file of a soak: it has no first line")
	}
	if maxShare != nil {
		s.MaxShare = *maxShare
	}
	Judge(s)
	return s, nil
}
