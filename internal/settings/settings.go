// Package settings finds the value of each flag of a program. A value comes from the command line,
// else from the environment, else from a file, else it is the flag's default. Each value has an
// [Origin], so that errors and lists name the file and the line, or the variable.
//
// The keys of a file are the names of the flags. The variable of a flag is the program's prefix and
// the name in capitals with _ for -: with the prefix DISTMSG_, the variable of --log-level is
// DISTMSG_LOG_LEVEL. Secrets are no flags: each has a variable, and a flag that names a file.
//
// The package reads the file, and nothing else: no environment, no clock, no globals.
package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Program says what is special about the flags of a program.
type Program struct {
	Prefix   string   // of its variables, as in DISTMSG_
	FileFlag string   // the flag that names the file, as in config
	MayBe0   []string // flags that may be given an empty value, or 0
	Secrets  []Secret
	Others   []string // variables with the prefix that are not for these flags
	// OneOf are groups of flags that exclude each other. One that is given takes the place of the
	// others in its group that come from weaker sources.
	OneOf [][]string
	// Elsewhere says of a key of a file that is no flag of this program what it is instead, such as
	// a flag of another program. It returns an empty text if it does not know. Default: it never
	// knows.
	Elsewhere func(key string) string
}

// Secret is a value that must not stand on the command line, nor in the file with the settings.
type Secret struct {
	Variable string // holds the secret itself
	FileFlag string // names a file that holds it, which wins over the variable
}

// key returns the key that somebody would choose for the secret in a file.
func (p *Program) key(s Secret) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s.Variable, p.Prefix), "_", "-"))
}

// Variable returns the environment variable of a flag.
func (p *Program) Variable(flag string) string {
	return p.Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Source is a kind of place that values come from.
type Source string

// The sources. A later one beats those before it.
const (
	Default     Source = "default"
	File        Source = "file"
	Environment Source = "environment"
	Flag        Source = "flag"
)

// Origin says where a value comes from.
type Origin struct {
	Source   Source `json:"source"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`     // 0: not known
	Variable string `json:"variable,omitempty"` // of the environment
}

// String returns the origin as in /etc/relay.yaml:3, DISTMSG_LOOPS, flag or default.
func (o Origin) String() string {
	switch o.Source {
	case File:
		return at(o.File, o.Line)
	case Environment:
		return o.Variable
	}
	return string(o.Source)
}

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// Value is the value of one flag, or tells that a secret is set.
type Value struct {
	Name   string `json:"name"`  // of the flag, without --
	Text   string `json:"value"` // as one would type it; of a secret, [Hidden]
	Origin Origin `json:"origin"`
}

// Hidden stands for what is not shown.
const Hidden = "********"

// Result is what Load has found.
type Result struct {
	Values  []Value  // all flags, in their order, and then the secrets that are set
	Unknown []string // says which variables with the program's prefix are nobody's
}

// layer is what one source says. For each flag it has the texts that one would type: several for a
// list.
type layer map[string]given

type given struct {
	texts  []string
	origin Origin
}

// Load sets the flags in into, which have their defaults. line has the same flags as they were
// given on the command line, and may have others. environ is that of os.Environ. The error names
// everything that is wrong, each with its origin.
func (p *Program) Load(into, line *pflag.FlagSet, environ []string) (*Result, error) {
	commandLine := p.commandLine(into, line)
	environment, unknown := p.environment(into, environ)
	layers := []layer{commandLine, environment}
	var wrong []error
	for _, l := range layers {
		if g, named := l[p.FileFlag]; named && g.texts[0] != "" {
			file, err := p.readFile(into, g.texts[0])
			if err != nil {
				wrong = append(wrong, err)
			}
			layers = append(layers, file)
			break
		}
	}
	p.replace(layers)
	origins := make(map[string]Origin)
	// Every value is checked, those too that another source beats.
	for _, l := range slices.Backward(layers) {
		into.VisitAll(func(f *pflag.Flag) {
			g, found := l[f.Name]
			if !found {
				return
			}
			origins[f.Name] = g.origin
			if err := p.set(f, g); err != nil {
				wrong = append(wrong, err)
			}
		})
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return &Result{Values: p.values(into, origins, environ), Unknown: unknown}, nil
}

// replace applies OneOf. The layers are sorted, the strongest first. If a layer has a flag of a
// group, replace removes the flags of that group from all weaker layers.
func (p *Program) replace(layers []layer) {
	for _, group := range p.OneOf {
		taken := false
		for _, l := range layers {
			given := false
			for _, name := range group {
				_, found := l[name]
				given = given || found
				if taken {
					delete(l, name)
				}
			}
			taken = taken || given
		}
	}
}

// Locate adds to an error where the values of the flags that it names come from, unless that is the
// command line.
func (r *Result) Locate(err error) error {
	if err == nil {
		return nil
	}
	var from []string
	for _, v := range r.Values {
		given := v.Origin.Source == File || v.Origin.Source == Environment
		if given && mentions(err.Error(), "--"+v.Name) {
			from = append(from, fmt.Sprintf("--%s comes from %s", v.Name, v.Origin))
		}
	}
	if len(from) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(from, ", "))
}

// mentions reports whether a text has a flag in it, and not only a longer one.
func mentions(text, flag string) bool {
	for {
		_, rest, found := strings.Cut(text, flag)
		if !found {
			return false
		}
		if end := strings.TrimLeft(rest, "-abcdefghijklmnopqrstuvwxyz0123456789"); end == rest {
			return true
		}
		text = rest
	}
}

// commandLine returns what was given on the command line.
func (p *Program) commandLine(into, line *pflag.FlagSet) layer {
	l := make(layer)
	line.Visit(func(f *pflag.Flag) {
		if into.Lookup(f.Name) != nil {
			l[f.Name] = given{texts: texts(f), origin: Origin{Source: Flag}}
		}
	})
	return l
}

// texts returns what one would type for the value of f.
func texts(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	return []string{f.Value.String()}
}

// environment returns what the environment says about the flags, and which variables with the
// prefix are neither of a flag nor of a secret.
func (p *Program) environment(into *pflag.FlagSet, environ []string) (l layer, unknown []string) {
	l = make(layer)
	flags := make(map[string]string) // by their variables
	var known []string
	into.VisitAll(func(f *pflag.Flag) {
		flags[p.Variable(f.Name)] = f.Name
		known = append(known, p.Variable(f.Name))
	})
	for _, s := range p.Secrets {
		known = append(known, s.Variable)
	}
	known = append(known, p.Others...)
	for _, pair := range environ {
		name, text, _ := strings.Cut(pair, "=")
		if flag, ok := flags[name]; ok {
			l[flag] = given{texts: []string{text}, origin: Origin{Source: Environment, Variable: name}}
		} else if strings.HasPrefix(name, p.Prefix) && !slices.Contains(known, name) {
			unknown = append(unknown, name+didYouMean(name, known))
		}
	}
	return l, unknown
}

// set gives f its value.
func (p *Program) set(f *pflag.Flag, g given) error {
	name := "--" + f.Name
	switch g.origin.Source {
	case File:
		name = g.origin.String() + ": " + f.Name
	case Environment:
		name = g.origin.Variable
	}
	var err error
	list, isList := f.Value.(pflag.SliceValue)
	if isList && g.origin.Source != Environment {
		err = list.Replace(g.texts)
	} else if err = f.Value.Set(g.texts[0]); err != nil {
		err = plain(f, g.texts[0], err)
	}
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	f.Changed = true
	if what, empty := g.empty(); empty && !slices.Contains(p.MayBe0, f.Name) {
		return fmt.Errorf("%s is %s: give it a value, or leave it out", name, what)
	}
	return nil
}

// empty reports whether an empty text or list was given, or zero, and how to call it. Usually a
// variable of a script was not set, and the default would hide that.
func (g *given) empty() (what string, is bool) {
	switch text := strings.Join(g.texts, ","); text {
	case "":
		return "empty", true
	case "0", "0s":
		return text, true
	}
	return "", false
}

// values lists the flags' values and the secrets that are set.
func (p *Program) values(flags *pflag.FlagSet, origins map[string]Origin, environ []string) []Value {
	var all []Value
	flags.VisitAll(func(f *pflag.Flag) {
		origin, found := origins[f.Name]
		if !found {
			origin = Origin{Source: Default}
		}
		all = append(all, Value{Name: f.Name, Text: hideUser(strings.Join(texts(f), ",")), Origin: origin})
	})
	for _, s := range p.Secrets {
		if origin, found := origins[s.FileFlag]; found {
			all = append(all, Value{Name: p.key(s), Text: Hidden, Origin: origin})
		} else if slices.ContainsFunc(environ, func(pair string) bool {
			return strings.HasPrefix(pair, s.Variable+"=") && pair != s.Variable+"="
		}) {
			all = append(all, Value{Name: p.key(s), Text: Hidden, Origin: Origin{Source: Environment, Variable: s.Variable}})
		}
	}
	return all
}

// hideUser hides the user and the password in a URL.
func hideUser(text string) string {
	scheme, rest, isURL := strings.Cut(text, "://")
	at := strings.LastIndexByte(rest, '@')
	if !isURL || at < 0 {
		return text
	}
	return scheme + "://" + Hidden + rest[at:]
}
