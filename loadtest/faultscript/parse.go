package faultscript

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// word is a part of a step, and where it stands.
type word struct {
	text string
	pos  int
}

// fields splits a step at white space. pos is the place of its first character.
func fields(text string, pos int) (words []word) {
	inside := false
	for i, r := range []rune(text) {
		switch {
		case unicode.IsSpace(r):
			inside = false
		case inside:
			last := &words[len(words)-1]
			last.text += string(r)
		default:
			words, inside = append(words, word{string(r), pos + i}), true
		}
	}
	return words
}

func (w word) wrong(format string, args ...any) error {
	return &SyntaxError{w.pos, fmt.Sprintf(format, args...)}
}

// parser reads the steps one after the other.
type parser struct {
	nodes int
	steps []Step
	last  time.Duration // the moment of the step before
}

// verbs says how the rest of a step is read, by the word that the user writes.
func verbs() map[string]func(p *parser, s *Step, args []word) error {
	return map[string]func(p *parser, s *Step, args []word) error{
		"kill-node":    about(Kill, (*parser).node),
		"restart-node": about(Restart, (*parser).node),
		"drain":        about(Drain, (*parser).node),
		"kill":         about(Kill, (*parser).process),
		"stop":         about(Stop, (*parser).process),
		"partition":    (*parser).partition,
		"upgrade":      (*parser).upgrade,
		"undrain":      (*parser).undrain,
		"heal":         (*parser).heal,
	}
}

// verbNames lists them for people.
const verbNames = "kill-node, restart-node, drain, undrain, kill, stop, partition, heal or upgrade"

// step reads one step.
func (p *parser) step(words []word) error {
	at, err := duration(words[0])
	if err != nil {
		return err
	}
	if at < p.last {
		return words[0].wrong("%v is before the step before it (%v)", at, p.last)
	}
	p.last = at
	if len(words) < 2 {
		return words[0].wrong("%s has no verb, want %s", words[0].text, verbNames)
	}
	read, ok := verbs()[words[1].text]
	if !ok {
		return words[1].wrong("there is no verb %q, want %s", words[1].text, verbNames)
	}
	var texts []string
	for _, w := range words[1:] {
		texts = append(texts, w.text)
	}
	return read(p, &Step{At: at, Text: strings.Join(texts, " "), pos: words[1].pos}, words[1:])
}

// duration reads a time, such as 1m30s.
func duration(w word) (time.Duration, error) {
	d, err := time.ParseDuration(w.text)
	if err != nil || d < 0 {
		return 0, w.wrong("%q is no time, want such as 10s or 1m30s", w.text)
	}
	return d, nil
}

// about returns how to read a verb about one process: the name, and how long it lasts.
func about(v Verb, name func(*parser, []word) (string, []word, error)) func(*parser, *Step, []word) error {
	return func(p *parser, s *Step, words []word) (err error) {
		rest := words
		if s.Target, rest, err = name(p, words); err != nil {
			return err
		}
		s.Verb = v
		if v == Restart {
			return p.add(s, rest, false)
		}
		return p.add(s, rest, true)
	}
}

// node reads the number or the name of a node. words begins with the verb.
func (p *parser) node(words []word) (name string, rest []word, err error) {
	if len(words) < 2 {
		return "", nil, words[0].wrong("%s needs a node, want 1 to %d", words[0].text, p.nodes)
	}
	if name = p.nodeNamed(words[1].text); name == "" {
		return "", nil, words[1].wrong("there is no node %q, want 1 to %d", words[1].text, p.nodes)
	}
	return name, words[2:], nil
}

func (p *parser) nodeNamed(text string) string {
	n, err := strconv.Atoi(strings.TrimPrefix(text, "n"))
	if err != nil || n < 1 || n > p.nodes {
		return ""
	}
	return fmt.Sprintf("n%d", n)
}

// process reads redis, zookeeper, or node and a node.
func (p *parser) process(words []word) (name string, rest []word, err error) {
	if len(words) > 1 {
		switch words[1].text {
		case redis, zooKeeper:
			return words[1].text, words[2:], nil
		case "node":
			return p.node(words[1:])
		}
		return "", nil, words[1].wrong("there is no %q, want redis, zookeeper, or node and its number", words[1].text)
	}
	return "", nil, words[0].wrong("%s needs redis, zookeeper, or node and its number", words[0].text)
}

// partition reads sides, as in 1|2,3. A side may have redis and zookeeper, too.
func (p *parser) partition(s *Step, words []word) error {
	if len(words) < 2 {
		return words[0].wrong("partition needs sides, such as 1|2,3")
	}
	sides, pos := words[1], words[1].pos
	var all []string
	for side := range strings.SplitSeq(sides.text, "|") {
		var names []string
		for text := range strings.SplitSeq(side, ",") {
			at := word{text, pos}
			pos += len([]rune(text)) + 1
			name := text
			if text != redis && text != zooKeeper {
				name = p.nodeNamed(text)
			}
			if name == "" {
				return at.wrong("there is no node %q, want 1 to %d, redis or zookeeper", text, p.nodes)
			}
			if slices.Contains(all, name) {
				return at.wrong("%s is there twice", text)
			}
			names, all = append(names, name), append(all, name)
		}
		s.Sides = append(s.Sides, names)
	}
	if len(s.Sides) < 2 {
		return sides.wrong("%q has one side, want such as 1|2,3", sides.text)
	}
	s.Verb = Partition
	return p.add(s, words[2:], true)
}

func (p *parser) upgrade(s *Step, words []word) error {
	s.Verb = Upgrade
	return p.add(s, words[1:], false)
}

// undrain ends the drain of a node.
func (p *parser) undrain(s *Step, words []word) error {
	name, rest, err := p.node(words)
	if err != nil {
		return err
	}
	return p.end(s, rest, Drain, name, words[0])
}

// heal ends a partition.
func (p *parser) heal(s *Step, words []word) error {
	return p.end(s, words[1:], Partition, "", words[0])
}

// end sets how long the last fault of a kind lasts.
func (p *parser) end(s *Step, rest []word, v Verb, target string, verb word) error {
	if len(rest) > 0 {
		return rest[0].wrong("%q is one word too many after %s", rest[0].text, s.Text)
	}
	for i := range slices.Backward(p.steps) {
		begun := &p.steps[i]
		if begun.Verb != v || begun.Target != target {
			continue
		}
		if begun.given || begun.At == s.At {
			break
		}
		begun.For, begun.given = s.At-begun.At, true
		return nil
	}
	return verb.wrong("%s has nothing to end: want a %s without a time before it", s.Text, v)
}

// add adds a step. rest may say how long it lasts, if lasts is true: a time, with or without "for".
func (p *parser) add(s *Step, rest []word, lasts bool) (err error) {
	if lasts && len(rest) > 1 && rest[0].text == "for" {
		rest = rest[1:]
	}
	if lasts && len(rest) > 0 {
		if s.For, err = duration(rest[0]); err != nil {
			return err
		}
		if s.For == 0 {
			return rest[0].wrong("a fault lasts longer than 0s")
		}
		s.given, rest = true, rest[1:]
	}
	if len(rest) > 0 {
		return rest[0].wrong("%q is one word too many", rest[0].text)
	}
	if lasts && s.For == 0 {
		s.For = usually // unless a later step says otherwise
	}
	p.steps = append(p.steps, *s)
	return nil
}

// finish rejects faults that would meet each other.
func (p *parser) finish() error {
	for i := range p.steps {
		for j := range p.steps[:i] {
			a, b := &p.steps[j], &p.steps[i]
			if b.At < a.End() && a.touches(b) {
				return &SyntaxError{b.pos, fmt.Sprintf("%s begins before %s ends, at %v", b.Text, a.Text, a.End())}
			}
		}
	}
	return nil
}

// touches reports whether two faults that overlap in time are about the same thing.
func (s *Step) touches(other *Step) bool {
	if s.Verb == Upgrade || other.Verb == Upgrade {
		return s.Verb != Partition && !s.aboutServer() && other.Verb != Partition && !other.aboutServer()
	}
	return s.Target == other.Target && (s.Verb == Partition) == (other.Verb == Partition)
}

func (s *Step) aboutServer() bool { return s.Target == redis || s.Target == zooKeeper }
