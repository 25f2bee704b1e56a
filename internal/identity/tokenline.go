package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A token is dmt_KEY_SECRET. KEY finds the line of the file whose hash is checked. It is no secret.
const (
	tokenPrefix = "dmt_"
	keyBytes    = 6  // of KEY, in hexadecimal
	secretBytes = 32 // of SECRET, in base64url
	keyLen      = 2 * keyBytes
	secretLen   = (secretBytes*8 + 5) / 6
)

// TokenLine is what a line of a token file says, as JSON.
type TokenLine struct {
	Key     string    `json:"key"`
	Name    string    `json:"name"`
	Hash    string    `json:"hash"`
	Expires time.Time `json:"expires,omitzero"`
	// Orders says of an operator whether it may give orders, and not only ask. It means nothing for
	// clients. Left out: it may.
	Orders *bool `json:"orders,omitempty"`
	Rights
}

// MayOrder reports whether an operator with this token may give orders.
func (l TokenLine) MayOrder() bool { return l.Orders == nil || *l.Orders }

// NewToken returns a new token and its line, which does not contain the token. It checks the name
// and the rights.
func NewToken(name string, rights Rights, expires time.Time) (token string, line TokenLine, err error) {
	key, secret := make([]byte, keyBytes), make([]byte, secretBytes)
	rand.Read(key) // never fails
	rand.Read(secret)
	line = TokenLine{Key: hex.EncodeToString(key), Name: name, Expires: expires, Rights: rights}
	text := base64.RawURLEncoding.EncodeToString(secret)
	line.Hash = newHash([]byte(text))
	if _, err := line.entry(); err != nil {
		return "", TokenLine{}, err
	}
	return tokenPrefix + line.Key + "_" + text, line, nil
}

// splitToken returns the parts of a token. ok is false for anything that is not formed like one.
func splitToken(credentials []byte) (key string, secret []byte, ok bool) {
	rest, found := bytes.CutPrefix(credentials, []byte(tokenPrefix))
	if !found || len(rest) != keyLen+1+secretLen || rest[keyLen] != '_' {
		return "", nil, false
	}
	return string(rest[:keyLen]), rest[keyLen+1:], true
}

// entry checks the line.
func (l TokenLine) entry() (*tokenEntry, error) {
	if key, err := hex.DecodeString(l.Key); err != nil || len(key) != keyBytes || hex.EncodeToString(key) != l.Key {
		return nil, fmt.Errorf("key is not %d hexadecimal digits in lower case", keyLen)
	}
	h, err := parseHash(l.Hash)
	if err != nil {
		return nil, err
	}
	who, err := l.identity(l.Name, l.Expires)
	if err != nil {
		return nil, err
	}
	return &tokenEntry{line: l, hash: h, who: who, turn: make(chan struct{}, 1)}, nil
}

// ParseTokenFile returns the lines of a token file: one JSON object a line, empty lines and lines
// that begin with # aside. An error names the line.
func ParseTokenFile(text []byte) ([]TokenLine, error) {
	set, err := parseTokens(text)
	if err != nil {
		return nil, err
	}
	return set.lines(), nil
}

// tokenSet is the content of a token file.
type tokenSet struct {
	byKey map[string]*tokenEntry
	order []*tokenEntry
}

func (s *tokenSet) lines() []TokenLine {
	lines := make([]TokenLine, len(s.order))
	for i, e := range s.order {
		lines[i] = e.line
	}
	return lines
}

// parseTokenFile reads a file whose tokens are to be in force. It refuses an empty file, which may
// be one that was lost: nobody could log in then.
func parseTokenFile(text []byte) (*tokenSet, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty: if it shall have no tokens, write a comment (#) into it")
	}
	return parseTokens(text)
}

func parseTokens(text []byte) (*tokenSet, error) {
	set := &tokenSet{byKey: make(map[string]*tokenEntry)}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		entry, err := parseTokenLine(line)
		if err == nil && set.byKey[entry.line.Key] != nil {
			err = errors.New("key stands in an earlier line, too")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		set.byKey[entry.line.Key] = entry
		set.order = append(set.order, entry)
	}
	return set, nil
}

func parseTokenLine(text []byte) (*tokenEntry, error) {
	var line TokenLine
	if err := decodeStrictly(text, &line); err != nil {
		return nil, err
	}
	return line.entry()
}

// text returns the line as it stands in the file.
func (l TokenLine) text() []byte {
	b, err := json.Marshal(l)
	if err != nil {
		panic(err) // nothing in a line can fail
	}
	return append(b, '\n')
}
