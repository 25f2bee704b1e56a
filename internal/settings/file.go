package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	tomlparser "github.com/knadh/koanf/parsers/toml/v2"
	yamlparser "github.com/knadh/koanf/parsers/yaml"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// maxFile bounds how much of a file is read.
const maxFile = 1 << 20

// format is how a file is written.
type format struct {
	parse func(text []byte) (map[string]any, error)
	// lines returns the line of each key at the top. It is called with what parse accepts.
	lines func(text []byte) (map[string]int, error)
}

func formatOf(name string) (format, error) {
	switch filepath.Ext(name) {
	case ".yaml", ".yml":
		return format{yamlparser.Parser().Unmarshal, yamlLines}, nil
	case ".toml":
		return format{tomlparser.Parser().Unmarshal, tomlLines}, nil
	}
	return format{}, fmt.Errorf("%s: want a name that ends in .yaml, .yml or .toml, which says how the file is written", name)
}

// readFile returns what the file says about the flags of into. The error names all keys that are
// unknown or whose values have a wrong type.
func (p *Program) readFile(into *pflag.FlagSet, name string) (layer, error) {
	format, err := formatOf(name)
	if err != nil {
		return nil, err
	}
	text, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	values, err := format.parse(text)
	if err != nil {
		return nil, explain(name, err)
	}
	lines, err := format.lines(text)
	if err != nil {
		return nil, explain(name, err)
	}
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return lines[a] - lines[b] })
	l := make(layer)
	var wrong []error
	for _, key := range keys {
		origin := Origin{Source: File, File: name, Line: lines[key]}
		f := into.Lookup(key)
		err := p.checkKey(into, key)
		if err == nil {
			var texts []string
			if texts, err = typed(f, values[key]); err == nil {
				l[key] = given{texts, origin}
			}
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", origin, err))
		}
	}
	return l, errors.Join(wrong...)
}

func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("the file with the settings cannot be read: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("the file with the settings cannot be read: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes: is it the right file?", name, maxFile)
	}
	return text, nil
}

// checkKey rejects a key that is not the name of a flag, or that must not stand in a file.
func (p *Program) checkKey(into *pflag.FlagSet, key string) error {
	for _, s := range p.Secrets {
		if key == p.key(s) {
			return fmt.Errorf("%s: a secret does not stand in this file: name a file that holds it as %s, or set %s", key, s.FileFlag, s.Variable)
		}
	}
	if key == p.FileFlag {
		return fmt.Errorf("%s: a file cannot name another one", key)
	}
	if into.Lookup(key) != nil {
		return nil
	}
	if p.Elsewhere != nil {
		if what := p.Elsewhere(key); what != "" {
			return fmt.Errorf("key %q: %s", key, what)
		}
	}
	var known []string
	into.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	proposal := didYouMean(key, known)
	if proposal == "" {
		proposal = ": the keys are the names of the flags, without --"
	}
	return fmt.Errorf("unknown key %q%s", key, proposal)
}

// explain says where in the file it cannot be read on.
func explain(name string, err error) error {
	var line int
	text := strings.Join(strings.Fields(err.Error()), " ") // of YAML, it has several lines
	if wrong := (*toml.DecodeError)(nil); errors.As(err, &wrong) {
		line, _ = wrong.Position()
	} else if before, rest, found := strings.Cut(text, " line "); found {
		number, what, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, text = n, before+" "+what
		}
	}
	return fmt.Errorf("%s: %s", at(name, line), text)
}

func yamlLines(text []byte) (map[string]int, error) {
	documents := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	lines := make(map[string]int)
	if err := documents.Decode(&first); err != nil || len(first.Content) == 0 {
		if err == io.EOF {
			return lines, nil
		}
		return lines, err
	}
	if err := documents.Decode(&second); err == nil {
		return nil, fmt.Errorf("line %d begins a second document: want one", second.Line)
	}
	root := first.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		lines[root.Content[i].Value] = root.Content[i].Line
	}
	return lines, nil
}

func tomlLines(text []byte) (map[string]int, error) {
	lines := make(map[string]int)
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		key := p.Expression().Key()
		if !key.Next() {
			continue
		}
		if name := string(key.Node().Data); lines[name] == 0 {
			lines[name] = p.Shape(key.Node().Raw).Start.Line
		}
		if kind := p.Expression().Kind; kind == unstable.Table || kind == unstable.ArrayTable {
			break // keys below it are not at the top
		}
	}
	return lines, p.Error()
}
