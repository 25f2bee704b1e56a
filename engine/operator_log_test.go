package engine

import (
	"errors"
	"strings"
	"testing"
)

// fakeLevels are levels that refuse one text.
type fakeLevels struct{ text string }

func (l *fakeLevels) String() string { return l.text }

func (l *fakeLevels) Set(text string) error {
	if text == "loud" {
		return errors.New("there is no such level")
	}
	l.text = text
	return nil
}

// The levels of a node's log are read and set while it runs, and a wrong text changes nothing.
func TestOperatorLogLevels(t *testing.T) {
	levels := &fakeLevels{"info"}
	o := start(t, Config{NodeID: "n0", LogLevels: levels}).Operator()
	if err := o.SetLogLevels(asks(t), "", "info,links=debug"); err != nil {
		t.Fatal(err)
	}
	if err := o.SetLogLevels(asks(t), "n0", "loud"); err == nil || !strings.Contains(err.Error(), "there is no such level") {
		t.Errorf("%v", err)
	}
	all, err := o.LogLevels(asks(t))
	if err != nil || len(all.Answers) != 1 || all.Answers[0] != (LogLevelInfo{"n0", "info,links=debug"}) {
		t.Errorf("%+v, %v", all, err)
	}
}

// A program whose log has no such levels says so.
func TestOperatorNoLogLevels(t *testing.T) {
	o := start(t, Config{NodeID: "n0"}).Operator()
	if err := o.SetLogLevels(asks(t), "", "debug"); err == nil || !strings.Contains(err.Error(), "no levels") {
		t.Errorf("%v", err)
	}
	if all, err := o.LogLevels(asks(t)); err != nil || !strings.Contains(missing(t, all, "n0"), "no levels") {
		t.Errorf("%+v, %v", all, err)
	}
}
