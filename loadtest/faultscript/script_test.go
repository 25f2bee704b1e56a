package faultscript

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// show writes steps so that tests can compare them.
func show(steps []Step) string {
	var list []string
	for _, s := range steps {
		what := s.Target
		if s.Sides != nil {
			what = fmt.Sprint(s.Sides)
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%v %s %s", s.At, s.Verb, what))+fmt.Sprintf(" for %v", s.For))
	}
	return strings.Join(list, "; ")
}

func TestScripts(t *testing.T) {
	for text, want := range map[string]string{
		"10s kill-node 2; 20s stop redis 5s; 30s drain 3; 40s partition 1|2,3": "10s kill n2 for 5s; 20s stop redis for 5s; 30s drain n3 for 5s; 40s partition [[n1] [n2 n3]] for 5s",
		"0s upgrade":                           "0s upgrade for 0s",
		"1m30s restart-node n1":                "1m30s restart n1 for 0s",
		"1s kill zookeeper for 2s":             "1s kill zookeeper for 2s",
		"1s stop node 3 100ms\n2s upgrade\n":   "1s stop n3 for 100ms; 2s upgrade for 0s",
		";; 1s kill node 1 ;":                  "1s kill n1 for 5s",
		"1s partition 1,redis|2|3 3s":          "1s partition [[n1 redis] [n2] [n3]] for 3s",
		"1s drain 1; 9s undrain 1":             "1s drain n1 for 8s",
		"1s partition 1|2; 2s heal":            "1s partition [[n1] [n2]] for 1s",
		"1s drain 1; 1s drain 2; 9s undrain 1": "1s drain n1 for 8s; 1s drain n2 for 5s",
		"1s partition 1|2 9s; 2s kill-node 2":  "1s partition [[n1] [n2]] for 9s; 2s kill n2 for 5s",
		"1s stop redis 9s; 2s upgrade":         "1s stop redis for 9s; 2s upgrade for 0s",
	} {
		steps, err := Parse(text, 3)
		if err != nil || show(steps) != want {
			t.Errorf("%q: %s, %v, want %s", text, show(steps), err, want)
		}
	}
}

func TestBadScripts(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "character 1: there is no step",
		" ; ":                                "character 1: there is no step",
		"kill-node 2":                        `character 1: "kill-node" is no time`,
		"10 kill-node 2":                     `character 1: "10" is no time, want such as 10s`,
		"-1s kill-node 2":                    `character 1: "-1s" is no time`,
		"10s":                                "character 1: 10s has no verb, want kill-node",
		"10s kil-node 2":                     `character 5: there is no verb "kil-node", want kill-node, restart-node`,
		"10s kill-node":                      "character 5: kill-node needs a node, want 1 to 3",
		"10s kill-node 4":                    `character 15: there is no node "4", want 1 to 3`,
		"10s kill-node 2 soon":               `character 17: "soon" is no time`,
		"10s kill-node 2 0s":                 "character 17: a fault lasts longer than 0s",
		"10s kill-node 2 5s 6s":              `character 20: "6s" is one word too many`,
		"10s kill-node 2 for":                `character 17: "for" is no time`,
		"10s restart-node 2 5s":              `character 20: "5s" is one word too many`,
		"10s upgrade 2":                      `character 13: "2" is one word too many`,
		"10s stop":                           "character 5: stop needs redis, zookeeper, or node",
		"10s stop rediss":                    `character 10: there is no "rediss", want redis`,
		"10s stop node":                      "character 10: node needs a node, want 1 to 3",
		"10s partition":                      "character 5: partition needs sides",
		"10s partition 1,2":                  `character 15: "1,2" has one side`,
		"10s partition 1|2,4":                `character 19: there is no node "4"`,
		"10s partition 1|":                   `character 17: there is no node ""`,
		"10s partition 1|2,1":                "character 19: 1 is there twice",
		"2s drain 1; 1s drain 2":             "character 13: 1s is before the step before it (2s)",
		"é 1s drain 1":                       `character 1: "é" is no time`,
		"1s drain 1; 2s drain é":             `character 22: there is no node "é"`,
		"1s undrain 1":                       "character 4: undrain 1 has nothing to end",
		"1s drain 1 2s; 2s undrain 1":        "character 19: undrain 1 has nothing to end: want a drain without a time",
		"1s drain 1; 2s undrain 2":           "character 16: undrain 2 has nothing to end",
		"1s heal":                            "character 4: heal has nothing to end",
		"1s stop redis; 2s kill redis":       "character 19: kill redis begins before stop redis ends, at 6s",
		"1s kill-node 1; 2s upgrade":         "character 20: upgrade begins before kill-node 1 ends, at 6s",
		"1s partition 1|2; 2s partition 1|3": "character 22: partition 1|3 begins before partition 1|2 ends",
		"1s drain 1; 2s stop node 1; 9s undrain 1": "character 16: stop node 1 begins before drain 1 ends, at 9s",
	} {
		_, err := Parse(text, 3)
		if wrong := (*SyntaxError)(nil); !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// Each prefix of a script is a script, or its error names a place in it.
func TestPrefixes(t *testing.T) {
	script := []rune("10s kill-node 2; 20s stop redis 5s; 30s drain 3; 40s partition 1|2,3; 50s heal; é")
	for n := range script {
		_, err := Parse(string(script[:n]), 3)
		if wrong := (*SyntaxError)(nil); errors.As(err, &wrong) && (wrong.Pos < 1 || wrong.Pos > n+1) {
			t.Errorf("%q: position %d", string(script[:n]), wrong.Pos)
		}
	}
}
