package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decodeYAML reads one YAML document into v. It refuses unknown fields and empty values, because an
// empty list of IDs could be meant as "none" and would be read as "every ID". It returns the
// document for the lines of its parts.
func decodeYAML(text []byte, v any) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, yamlError(err)
	}
	if err := refuseNulls(&doc); err != nil {
		return nil, err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		return nil, yamlError(err)
	}
	if err := d.Decode(new(yaml.Node)); err != io.EOF {
		return nil, errors.New("there is more than one document")
	}
	return &doc, nil
}

func refuseNulls(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return fmt.Errorf("line %d: a value is empty: give one, or leave the line out", n.Line)
	}
	for _, part := range n.Content {
		if err := refuseNulls(part); err != nil {
			return err
		}
	}
	return nil
}

// yamlError makes one line of what the library says.
func yamlError(err error) error {
	if err == io.EOF {
		return errors.New("it is empty")
	}
	if typed := (*yaml.TypeError)(nil); errors.As(err, &typed) && len(typed.Errors) > 0 {
		return errors.New(typed.Errors[0])
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}
