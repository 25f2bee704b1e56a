package certs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config says which files a Store reads, and what it makes of them.
type Config struct {
	Files
	// MinVersion is the lowest version of TLS, such as tls.VersionTLS13. Default: 1.2.
	MinVersion uint16
	// ClientCertOptional lets clients in that show no certificate. One that is shown is verified in
	// any case. By default, a server with a CA refuses clients without a certificate.
	ClientCertOptional bool
	// Name says in the log what the files are for, such as "clients".
	Name string
	// Logger gets what an operator should see. Default: slog.Default().
	Logger *slog.Logger
	// Every is how often Run looks at the files. Default: 2 s.
	Every time.Duration
}

const (
	defaultEvery = 2 * time.Second
	// how often a certificate that ends soon is mentioned again
	remindEvery = 24 * time.Hour
)

// Store holds the current state of a set of files. Any goroutine may call its methods.
type Store struct {
	cfg Config
	now atomic.Pointer[state]

	mu       sync.Mutex
	tried    [sha256.Size]byte // guarded by mu: what was last taken or refused
	seen     [sha256.Size]byte // guarded by mu: what Run has seen in its last look
	refused  error             // guarded by mu: why tried is not in use; nil if it is
	reminded time.Time         // guarded by mu: when the log last had something about the end
}

// state is what the files held at one time. It never changes.
type state struct {
	pair        *tls.Certificate    // nil: none
	authorities *x509.CertPool      // nil: none
	roots       []*x509.Certificate // what is in authorities
	server      *tls.Config
	// The sessions that a client can resume. A server knows the client of such a session by the
	// certificate that it had at first, so they do not outlive the state.
	sessions tls.ClientSessionCache
}

// Open reads the files. It fails if one of them cannot be used.
func Open(cfg Config) (*Store, error) {
	if (cfg.Cert == "") != (cfg.Key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate: name both files")
	}
	cfg.MinVersion = cmp.Or(cfg.MinVersion, tls.VersionTLS12)
	cfg.Every = cmp.Or(cfg.Every, defaultEvery)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Name != "" {
		cfg.Logger = cfg.Logger.With("for", cfg.Name)
	}
	s := &Store{cfg: cfg}
	fresh, sum, err := s.load()
	if err != nil {
		return nil, err
	}
	s.now.Store(fresh)
	s.tried, s.seen = sum, sum
	s.warnReadable()
	s.remind(time.Now())
	return s, nil
}

// load reads the files and checks that they can be used. It changes nothing.
func (s *Store) load() (*state, [sha256.Size]byte, error) {
	text, err := s.cfg.read()
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	pair, authorities, err := s.cfg.parse(text)
	if err != nil {
		return nil, text.sum(), err
	}
	return s.newState(pair, authorities), text.sum(), nil
}

func (s *Store) newState(pair *tls.Certificate, authorities []*x509.Certificate) *state {
	st := &state{pair: pair, roots: authorities, sessions: tls.NewLRUClientSessionCache(0)}
	server := &tls.Config{MinVersion: s.cfg.MinVersion}
	if pair != nil {
		server.Certificates = []tls.Certificate{*pair}
	}
	if authorities != nil {
		st.authorities = x509.NewCertPool()
		for _, ca := range authorities {
			st.authorities.AddCert(ca)
		}
		server.ClientCAs, server.ClientAuth = st.authorities, tls.RequireAndVerifyClientCert
		if s.cfg.ClientCertOptional {
			server.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	st.server = server
	return st
}

// Server returns a configuration for servers. Each handshake uses the files as they are then.
// crypto/tls verifies the certificate of a resumed session again, with the CAs of that time.
func (s *Store) Server() *tls.Config {
	return &tls.Config{
		MinVersion:         s.cfg.MinVersion,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load().server, nil },
	}
}

// Client returns a configuration for one connection to the server of this name, which may be an IP
// address. It uses the files as they are now.
func (s *Store) Client(serverName string) *tls.Config {
	st := s.now.Load()
	cfg := &tls.Config{
		MinVersion: s.cfg.MinVersion, ServerName: serverName, RootCAs: st.authorities, ClientSessionCache: st.sessions,
	}
	if st.pair != nil {
		cfg.Certificates = []tls.Certificate{*st.pair}
	}
	return cfg
}

// CheckName returns an error if a client that connects to this host would refuse the certificate
// because of its names. host is a DNS name or an IP address.
func (s *Store) CheckName(host string) error {
	if st := s.now.Load(); st.pair != nil {
		return st.pair.Leaf.VerifyHostname(host)
	}
	return nil
}

// Run looks at the files until ctx ends.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.look(now)
		}
	}
}

// look takes what has changed and was the same in the look before.
func (s *Store) look(now time.Time) {
	fresh, sum, err := s.load()
	s.mu.Lock()
	settled := sum == s.seen
	s.seen = sum
	log := func() {}
	if settled && sum != s.tried {
		log = s.take(fresh, sum, err)
	}
	s.mu.Unlock()
	log()
	s.remind(now)
}

// Reload reads the files at once. If it returns an error, the store keeps what it has.
func (s *Store) Reload() error {
	commit, err := s.Prepare()
	if commit != nil {
		commit()
	}
	return err
}

// Prepare reads the files and checks that they can be used. Commit begins to use what Prepare has
// read. Until then, and without it, the store keeps what it has. A nil commit means that nothing
// has changed. The log does not mention an error that Prepare has returned.
func (s *Store) Prepare() (commit func(), err error) {
	fresh, sum, err := s.load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.tried, s.refused = sum, err
		return nil, err
	}
	if sum == s.tried {
		return nil, nil
	}
	return func() {
		s.mu.Lock()
		log := s.take(fresh, sum, nil)
		s.mu.Unlock()
		log()
		s.remind(time.Now())
	}, nil
}

// take begins to use fresh, unless err says that it cannot be used. The caller holds mu. It then
// releases mu and calls log.
func (s *Store) take(fresh *state, sum [sha256.Size]byte, err error) (log func()) {
	s.tried, s.refused = sum, err
	if err != nil {
		return func() {
			s.cfg.Logger.Error("TLS files have changed and cannot be used; what they held before stays in use", "err", err)
		}
	}
	before := s.now.Swap(fresh)
	s.reminded = time.Time{} // the new certificate may be near its end, too
	return func() {
		s.cfg.Logger.Info("TLS files have changed and are in use for new connections", changes(before, fresh)...)
		s.warnReadable()
	}
}

// Err returns why the files cannot be used as they are now, or nil.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// warnReadable warns of a key that everybody can read.
func (s *Store) warnReadable() {
	if s.cfg.Key == "" {
		return
	}
	if info, err := os.Stat(s.cfg.Key); err == nil && info.Mode().Perm()&0o004 != 0 {
		s.cfg.Logger.Warn("everybody on this machine can read a secret: set its mode to 600", "file", s.cfg.Key)
	}
}
