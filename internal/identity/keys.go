package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// verifyKey is a public key that verifies signed tokens.
type verifyKey struct {
	id     string   // kid; empty: tokens with any kid may be signed with it
	algs   []string // those that belong to the type of the key, or the one that the key is for
	public crypto.PublicKey
}

// The algorithms that a key may be used with. There are none for shared secrets: whoever verifies
// could sign as well, and a public key would be taken for one.
var (
	rsaAlgs     = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	curveAlgs   = map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}
	ed25519Algs = []string{"EdDSA"}
)

const (
	minRSA  = 2048 // bits
	maxRSA  = 8192 // bits: larger ones take long to verify
	maxKeys = 64   // of a source: a token without kid is tried with each of them
)

// algsOf returns the algorithms for the type of a key, or an error for keys that cannot be used.
func algsOf(public crypto.PublicKey) ([]string, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("an RSA key has %d bits: want %d to %d", bits, minRSA, maxRSA)
		}
		return rsaAlgs, nil
	case *ecdsa.PublicKey:
		if alg := curveAlgs[k.Curve]; alg != "" {
			return []string{alg}, nil
		}
	case ed25519.PublicKey:
		return ed25519Algs, nil
	}
	return nil, errors.New("a key is neither RSA nor ECDSA (P-256, P-384, P-521) nor Ed25519")
}

// keySet has the keys of one source.
type keySet []verifyKey

// find returns the keys that may have signed a token with this header.
func (s keySet) find(kid, alg string) []crypto.PublicKey {
	var found []crypto.PublicKey
	for _, k := range s {
		if (k.id == "" || kid == "" || k.id == kid) && slices.Contains(k.algs, alg) {
			found = append(found, k.public)
		}
	}
	return found
}

// parseKeys reads a file of public keys: PEM or a JSON Web Key Set.
func parseKeys(text []byte) (keySet, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return parsePEM(text)
	}
	keys, wrong, err := parseJWKS(text)
	if err != nil || len(wrong) > 0 {
		return nil, errors.Join(append(wrong[:min(1, len(wrong))], err)...)
	}
	return keys, nil
}

func parsePEM(text []byte) (keySet, error) {
	var keys keySet
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var public crypto.PublicKey
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				public = cert.PublicKey
			}
		default:
			return nil, fmt.Errorf("PEM block %d is a %q: want PUBLIC KEY or CERTIFICATE", len(keys)+1, block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %d cannot be read", len(keys)+1)
		}
		algs, err := algsOf(public)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, verifyKey{algs: algs, public: public})
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("there is no key: want PEM, or a JSON Web Key Set")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("there are %d keys, and may be %d", len(keys), maxKeys)
	}
	return keys, nil
}

// jwk is a key of a JSON Web Key Set.
type jwk struct {
	Kty string   `json:"kty"`
	Use string   `json:"use"`
	Ops []string `json:"key_ops"`
	Alg string   `json:"alg"`
	Kid string   `json:"kid"`
	Crv string   `json:"crv"`
	N   string   `json:"n"`
	E   string   `json:"e"`
	X   string   `json:"x"`
	Y   string   `json:"y"`
	D   string   `json:"d"` // of a private key
}

// parseJWKS reads a JSON Web Key Set. As RFC 7517 demands, it skips keys of kinds that it does not
// know, and those that are not for signatures. It returns what is wrong with keys that it should
// know, and the keys that are right.
func parseJWKS(text []byte) (keys keySet, wrong []error, err error) {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, nil, jsonError(err)
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("there are %d keys, and may be %d", len(set.Keys), maxKeys)
	}
	for i, k := range set.Keys {
		if k.Use != "" && k.Use != "sig" || len(k.Ops) > 0 && !slices.Contains(k.Ops, "verify") {
			continue
		}
		public, err := k.public()
		if err == nil && public == nil {
			continue
		}
		var algs []string
		if err == nil {
			algs, err = algsOf(public)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		if k.Alg != "" {
			if !slices.Contains(algs, k.Alg) {
				continue // for something else, such as encryption
			}
			algs = []string{k.Alg}
		}
		keys = append(keys, verifyKey{id: k.Kid, algs: algs, public: public})
	}
	if len(keys) == 0 && len(wrong) == 0 {
		return nil, nil, errors.New("there is no key that verifies signatures")
	}
	return keys, wrong, nil
}

// public returns the key, or nil for keys of a kind that we do not know.
func (k jwk) public() (crypto.PublicKey, error) {
	if k.D != "" {
		return nil, errors.New("it is a private key, and its owner should know that others have it")
	}
	switch k.Kty {
	case "RSA":
		n, err1 := base64.RawURLEncoding.DecodeString(k.N)
		e, err2 := base64.RawURLEncoding.DecodeString(k.E)
		exponent := new(big.Int).SetBytes(e)
		if err1 != nil || err2 != nil || len(n) == 0 || !exponent.IsInt64() || exponent.Int64() < 3 || exponent.Int64() > 1<<31-1 || exponent.Bit(0) == 0 {
			return nil, errors.New("it is no RSA key")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
	case "EC":
		return k.ecdsa()
	case "OKP":
		if k.Crv != "Ed25519" {
			return nil, nil
		}
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, errors.New("it is no Ed25519 key")
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, nil
}

func (k jwk) ecdsa() (crypto.PublicKey, error) {
	for curve := range curveAlgs {
		if curve.Params().Name != k.Crv {
			continue
		}
		size := (curve.Params().BitSize + 7) / 8
		x, err1 := base64.RawURLEncoding.DecodeString(k.X)
		y, err2 := base64.RawURLEncoding.DecodeString(k.Y)
		if err1 != nil || err2 != nil || len(x) != size || len(y) != size {
			return nil, errors.New("its coordinates are not those of its curve")
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, errors.New("it is no point of its curve")
		}
		return public, nil
	}
	return nil, nil
}
