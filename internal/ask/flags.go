package ask

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"distmsg/internal/certs"
	"distmsg/internal/cli"
	"distmsg/internal/settings"
)

const (
	envAdmin = "DISTMSG_ADMIN"       // for --admin
	envToken = "DISTMSG_ADMIN_TOKEN" // the token itself
)

// Variables returns the environment variables that the commands read.
func Variables() []string { return []string{envAdmin, envToken} }

// flags say which node a command asks, and how.
type flags struct {
	admin, tokenFile string
	tls              certs.Files
	serverName       string
	timeout          time.Duration
	json             bool
}

func (f *flags) addTo(set *pflag.FlagSet) {
	set.SortFlags = false
	addAdmin(set, &f.admin)
	set.StringVar(&f.tokenFile, "token-file", "", "`file` with the token to show, if the node asks for one (or in "+envToken+")")
	set.StringVar(&f.tls.CA, "tls-ca", "", "PEM `file` with the authorities that sign the certificate of an https URL (default: those that the system trusts)")
	set.StringVar(&f.tls.Cert, "tls-cert", "", "PEM `file` with the certificate to show, if the node asks for one")
	set.StringVar(&f.tls.Key, "tls-key", "", "PEM `file` with the key of that certificate")
	set.StringVar(&f.serverName, "tls-server-name", "", "`name` in the node's certificate (default: the host of --admin)")
	set.DurationVar(&f.timeout, "timeout", 3*time.Second, "how long the node may wait for the other nodes' answers, at most 8s")
	set.BoolVar(&f.json, "json", false, "print the answer of the API as JSON")
}

func addAdmin(set *pflag.FlagSet, admin *string) {
	set.StringVar(admin, "admin", "http://127.0.0.1:7401", "`URL` of the admin port of any node (or in "+envAdmin+")")
}

// client returns a client for the flags as they were given.
func (f *flags) client(line *pflag.FlagSet) (*Client, error) {
	var base string
	found, err := findAdmin(line, &base)
	if err != nil {
		return nil, cli.WithCode(cli.ExitUsage, err)
	}
	f.admin = base
	secure, err := f.secure()
	if err != nil {
		return nil, err
	}
	token, err := f.token()
	if err != nil {
		return nil, err
	}
	if f.timeout <= 0 {
		return nil, cli.Usagef("--timeout %v must be over 0", f.timeout)
	}
	c, err := newClient(f.admin, token, f.timeout, secure)
	return c, cli.WithCode(cli.ExitUsage, found.Locate(err))
}

// findAdmin finds the value of --admin: on the command line, in the environment, or the default.
func findAdmin(line *pflag.FlagSet, admin *string) (*settings.Result, error) {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	addAdmin(set, admin)
	program := settings.Program{Prefix: "DISTMSG_"}
	return program.Load(set, line, os.Environ())
}

// secure returns the settings for https.
func (f *flags) secure() (*tls.Config, error) {
	if f.tls == (certs.Files{}) && f.serverName == "" {
		return nil, nil
	}
	if !strings.HasPrefix(f.admin, "https://") {
		return nil, cli.Usagef("the flags that begin with --tls- need an --admin that begins with https://, and it is %s", f.admin)
	}
	store, err := certs.Open(certs.Config{Files: f.tls, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, cli.Usagef("--tls-ca, --tls-cert and --tls-key: %w", err)
	}
	return store.Client(f.serverName), nil
}

// token returns the token to show, or an empty text.
func (f *flags) token() (string, error) {
	if f.tokenFile == "" {
		return strings.TrimSpace(os.Getenv(envToken)), nil
	}
	text, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return "", cli.Usagef("--token-file cannot be read: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsAny(token, " \n\t") {
		return "", cli.Usagef("--token-file %s has no token, or several", f.tokenFile)
	}
	return token, nil
}

// incomplete is the error about an answer that lacks nodes.
func incomplete(missing int) error {
	if missing == 0 {
		return nil
	}
	nodes := "1 node has"
	if missing > 1 {
		nodes = fmt.Sprintf("%d nodes have", missing)
	}
	return cli.WithCode(cli.ExitIncomplete, fmt.Errorf("%s not answered", nodes))
}
