package redis

import (
	"testing"
	"time"

	"distmsg/internal/certs/certstest"
	"distmsg/internal/proc"
	"distmsg/routing"
	"distmsg/routing/registrytest"
)

// runContract runs the suite on one store: every case with a registry of its own. The suite's
// sessions bind without being attached, for which the sweep would end them in time.
func runContract(t *testing.T, histories int, config Config) {
	config.ResumeWindow = time.Hour
	registrytest.Run(t, histories, func(t *testing.T, clock func() time.Time) routing.Registry {
		config.Clock = clock
		return open(t, config)
	})
}

// The histories let an ID move while old messages arrive late, with the clock jumping by up to 10
// s: against the real Lua.
func TestContractStandalone(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{Password: "secret"})
	config := testConfig(server.URL())
	config.Password = "secret"
	runContract(t, 5000, config)
}

func TestContractCluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	runContract(t, 100, testConfig(servers.URL()))
}

func TestContractSentinels(t *testing.T) {
	t.Parallel()
	servers, err := proc.StartRedisSentinels(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Close)
	runContract(t, 100, testConfig(servers.URL()))
}

// certificates writes an authority, and a certificate that it has signed.
func certificates(t *testing.T) proc.Certificates {
	t.Helper()
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	pair := ca.Issue(t, certstest.Request{}).Write(t, dir, "redis")
	return proc.Certificates{CA: ca.Write(t, dir), Cert: pair.CertFile, Key: pair.KeyFile}
}

func TestContractTLS(t *testing.T) {
	t.Parallel()
	files := certificates(t)
	server := startRedis(t, proc.RedisOptions{TLS: &files})
	config := testConfig(server.URL())
	config.TLS = TLS(files)
	runContract(t, 100, config)
}
