package identity

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// The cost of the hashes that we make. Secrets are 256 random bits, so nobody guesses them however
// cheap a check is. It is low, so that a node can soon check everybody's token after a restart.
const (
	argonTime   = 1
	argonMemory = 1 << 10 // KiB
	argonLanes  = 1
)

// The largest costs of a hash that a file may have, so that no line can take a node's memory or
// CPU.
const (
	maxArgonTime   = 10
	maxArgonMemory = 256 << 10 // KiB
	maxArgonLanes  = 16
	maxBcryptCost  = 14
)

// hash is a salted hash of a secret.
type hash interface {
	matches(secret []byte) bool
}

// newHash returns a salted hash in PHC format: $argon2id$v=19$m=…,t=…,p=…$salt$sum.
func newHash(secret []byte) string {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	sum := argon2.IDKey(secret, salt, argonTime, argonMemory, argonLanes, 32)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes,
		b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// parseHash reads a hash of argon2id or bcrypt. Errors do not quote it.
func parseHash(text string) (hash, error) {
	if strings.HasPrefix(text, "$2") {
		cost, err := bcrypt.Cost([]byte(text))
		switch {
		case err != nil:
			return nil, errors.New("hash begins like one of bcrypt, and is none")
		case cost > maxBcryptCost:
			return nil, fmt.Errorf("hash has a bcrypt cost of %d, and may have %d", cost, maxBcryptCost)
		}
		return bcryptHash(text), nil
	}
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return nil, errors.New("hash is neither of argon2id ($argon2id$v=19$…) nor of bcrypt ($2b$…)")
	}
	if parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, fmt.Errorf("hash is of another version of argon2 than v=%d", argon2.Version)
	}
	var h argonHash
	var lanes uint32
	params := parts[3]
	if n, err := fmt.Sscanf(params, "m=%d,t=%d,p=%d", &h.memory, &h.time, &lanes); n != 3 || err != nil ||
		params != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, lanes) {
		return nil, errors.New("hash has no parameters m=…,t=…,p=…")
	}
	if h.memory < 8*lanes || h.memory > maxArgonMemory || h.time < 1 || h.time > maxArgonTime || lanes < 1 || lanes > maxArgonLanes {
		return nil, fmt.Errorf("hash has the parameters %s, and may have m=%d,t=%d,p=%d", params, maxArgonMemory, maxArgonTime, maxArgonLanes)
	}
	h.lanes = uint8(lanes)
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	h.sum, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if errors.Join(err1, err2) != nil || len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64 {
		return nil, errors.New("hash has a salt or a sum that is no base64, or too short or long")
	}
	return h, nil
}

type argonHash struct {
	memory, time uint32
	lanes        uint8
	salt, sum    []byte
}

func (h argonHash) matches(secret []byte) bool {
	sum := argon2.IDKey(secret, h.salt, h.time, h.memory, h.lanes, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

type bcryptHash string

func (h bcryptHash) matches(secret []byte) bool {
	return bcrypt.CompareHashAndPassword([]byte(h), secret) == nil
}
