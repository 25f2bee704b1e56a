package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"distmsg/engine"
)

// A rule maps client certificates to identities.
type rule struct {
	Match match  `yaml:"match"`
	Name  string `yaml:"name"`

	Rights `yaml:",inline"`
}

// match has a pattern for one kind of name in a certificate. A * in it matches one part of the
// name: of a host name the text between two dots, of a URI that between two slashes.
type match struct {
	DNS   string `yaml:"dns"`
	URI   string `yaml:"uri"`
	Email string `yaml:"email"`
	CN    string `yaml:"cn"`
}

// matched stands in a rule's name and IDs for what the * of its pattern has matched.
const matched = "{}"

// parseRules reads a file of rules. An error names the line.
func parseRules(text []byte) ([]rule, error) {
	var all struct {
		Rules []rule `yaml:"rules"`
	}
	doc, err := decodeYAML(text, &all)
	if err != nil {
		return nil, err
	}
	if len(all.Rules) == 0 {
		return nil, errors.New("there are no rules")
	}
	lines := doc.Content[0].Content[1].Content // the only field is rules, and it has a list
	for i, r := range all.Rules {
		if err := r.validate(); err != nil {
			return nil, fmt.Errorf("line %d: %w", lines[i].Line, err)
		}
	}
	return all.Rules, nil
}

func (r rule) validate() error {
	var patterns []string
	for _, p := range []string{r.Match.DNS, r.Match.URI, r.Match.Email, r.Match.CN} {
		if p != "" {
			patterns = append(patterns, p)
		}
	}
	if len(patterns) != 1 {
		return errors.New("match needs exactly one of dns, uri, email, cn")
	}
	stars := strings.Count(patterns[0], "*")
	if stars > 1 {
		return fmt.Errorf("match has the pattern %q: it may have one *", patterns[0])
	}
	uses := strings.Contains(r.Name, matched) || slices.ContainsFunc(r.IDs, func(p string) bool { return strings.Contains(p, matched) })
	if uses && stars == 0 {
		return fmt.Errorf("%s stands for what * in the pattern has matched, and %q has no *", matched, patterns[0])
	}
	_, err := r.identify("x", time.Time{})
	return err
}

// identify returns the identity that the rule gives to a certificate whose part matched the *.
func (r rule) identify(part string, expires time.Time) (engine.Identity, error) {
	rights := r.Rights
	rights.IDs = slices.Clone(rights.IDs)
	for i, p := range rights.IDs {
		rights.IDs[i] = strings.ReplaceAll(p, matched, part)
	}
	return rights.identity(strings.ReplaceAll(r.Name, matched, part), expires)
}

// match returns what the * of the rule's pattern matches in a name of the certificate. ok is false
// if no name of it matches.
func (r rule) match(leaf *x509.Certificate) (part string, ok bool) {
	m := r.Match
	switch {
	case m.DNS != "":
		for _, name := range leaf.DNSNames {
			if part, ok = cut(strings.ToLower(m.DNS), strings.ToLower(name), "."); ok {
				return part, true
			}
		}
	case m.URI != "":
		for _, u := range leaf.URIs {
			if part, ok = cut(m.URI, u.String(), "/?#"); ok {
				return part, true
			}
		}
	case m.Email != "":
		for _, address := range leaf.EmailAddresses {
			if part, ok = cut(m.Email, address, "@"); ok {
				return part, true
			}
		}
	default:
		return cut(m.CN, leaf.Subject.CommonName, "")
	}
	return "", false
}

// cut matches name with a pattern and returns what the * has matched. That is not empty, has none
// of the separators, and no *, {, or }: a certificate for *.example.com must not become a pattern
// for every ID.
func cut(pattern, name, separators string) (part string, ok bool) {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return "", name == pattern
	}
	rest, ok1 := strings.CutPrefix(name, before)
	part, ok2 := strings.CutSuffix(rest, after)
	if !ok1 || !ok2 || part == "" || strings.ContainsAny(part, separators+"*{}") {
		return "", false
	}
	return part, true
}
