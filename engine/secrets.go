package engine

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"distmsg/codec"
	"distmsg/engine/internal/keyring"
)

// A secret can be replaced while the nodes run. Each node signs with one secret, and accepts what
// others have signed with any of its secrets. So the nodes get the new secret one after the other,
// first to accept it, and then to use it.

// The resume secret of a session is signed when a client connects. So a node that uses another
// secret asks its clients to connect again. Otherwise their sessions could not be resumed once the
// former secret is no longer accepted.

// Secrets are the secrets of a node. Each has at least 16 bytes. The node uses the first of a list,
// and accepts all of them.
type Secrets struct {
	Cluster [][]byte // see Config.ClusterSecret
	Resume  [][]byte // see Config.Secret. Empty: those of the cluster
}

// SetSecrets replaces the secrets of a running node. Links, connections and sessions stay. If the
// first secret for resuming is another one, the node asks its clients to log in again within
// Config.ExpiryGrace, so that they get another resume secret, and closes no connection. To replace
// a secret in a cluster, call it at each node three times, and go on when all nodes have made the
// step: with the old and the new secret, with the new and the old one, and with the new one alone.
// Before the last step, wait for the resume window and ExpiryGrace. SetSecrets returns an error,
// and changes nothing, if a list is empty or a secret too short. Any goroutine may call it.
func (e *Engine) SetSecrets(s Secrets) error {
	if len(s.Resume) == 0 {
		s.Resume = s.Cluster
	}
	if err := s.validate(e.cluster != nil); err != nil {
		return err
	}
	e.secrets.cluster.Set(cloneEach(s.Cluster))
	former := e.secrets.resume.First()
	e.secrets.resume.Set(cloneEach(s.Resume))
	if !bytes.Equal(former, s.Resume[0]) {
		e.eachConn(func(c *conn) { c.renewSecret() })
	}
	return nil
}

const detailSecret = "the node signs sessions with another secret: log in again"

// renewSecret asks a client to connect again, so that it gets another resume secret.
func (c *conn) renewSecret() {
	if c.kind == linkConn || c.state != stateOpen || c.standing == hasLeft {
		return
	}
	if c.term != nil && c.term.phase == termEnding { // it has heard that
		return
	}
	l := c.loop
	l.pace.worked(writeWork)
	c.out.wroteControl(codec.AppendRelogin(c.out.buf(), uint64(l.eng.cfg.ExpiryGrace.Milliseconds()), detailSecret))
}

// cloneEach copies secrets, so that the caller may overwrite its own.
func cloneEach(secrets [][]byte) [][]byte {
	all := make([][]byte, len(secrets))
	for i, secret := range secrets {
		all[i] = slices.Clone(secret)
	}
	return all
}

func (s *Secrets) validate(clustered bool) error {
	if clustered && len(s.Cluster) == 0 {
		return errors.New("engine: a cluster needs a secret")
	}
	if len(s.Resume) == 0 {
		return errors.New("engine: sessions need a secret to resume with")
	}
	for _, list := range [][][]byte{s.Cluster, s.Resume} {
		for _, secret := range list {
			if len(secret) < minSecret {
				return fmt.Errorf("engine: a secret has %d bytes, at least %d are needed", len(secret), minSecret)
			}
		}
	}
	return nil
}

// secrets holds the secrets of an engine. It is static; its rings may change.
type secrets struct {
	cluster *keyring.Ring // empty without a cluster
	resume  *keyring.Ring
}

func newSecrets(c *Config) secrets {
	s := secrets{cluster: keyring.New(), resume: keyring.New(append([][]byte{c.Secret}, c.SecretsAccepted...)...)}
	if c.ClusterSecret != nil {
		s.cluster.Set(append([][]byte{c.ClusterSecret}, c.ClusterSecretsAccepted...))
	}
	return s
}

// derive returns what identifies a key and reveals nothing else of it.
func derive(key []byte, label string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(label))
	return mac.Sum(nil)
}

// fingerprints returns what the nodes of a cluster have in common and may tell others: one for each
// of the cluster's secrets.
func fingerprints(ring *keyring.Ring, cluster string) []string {
	var all []string
	for _, key := range ring.All() {
		all = append(all, hex.EncodeToString(derive(key, "distmsg registry\x00"+cluster)))
	}
	return all
}
