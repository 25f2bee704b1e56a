package main

import (
	"bytes"
	"log/slog"
	"os"

	"distmsg/internal/cli"
)

// The environment variables that may hold secrets instead of files.
const (
	envSecret           = "DISTMSG_CLUSTER_SECRET"
	envRegistryPassword = "DISTMSG_REGISTRY_PASSWORD"
	envSentinelPassword = "DISTMSG_REGISTRY_SENTINEL_PASSWORD"
	envDiscoveryAuth    = "DISTMSG_DISCOVERY_AUTH"

	minSecret = 16 // bytes
)

// secrets are values that must not be in flags.
type secrets struct {
	cluster                    []byte // nil: none
	registry, sentinel, zkAuth string
}

func readSecrets(o options, logger *slog.Logger) (secrets, error) {
	var s secrets
	var cluster string
	for _, from := range []struct {
		flag, file, env string
		to              *string
	}{
		{"--cluster-secret-file", o.secretFile, envSecret, &cluster},
		{"--registry-password-file", o.registryPasswordFile, envRegistryPassword, &s.registry},
		{"--registry-sentinel-password-file", o.sentinelPasswordFile, envSentinelPassword, &s.sentinel},
		{"--discovery-auth-file", o.discoveryAuthFile, envDiscoveryAuth, &s.zkAuth},
	} {
		var err error
		if *from.to, err = readSecret(from.flag, from.file, from.env, logger); err != nil {
			return s, err
		}
	}
	switch {
	case cluster == "" && o.clustered():
		return s, cli.Usagef("a cluster needs a secret: put at least %d random bytes into a file "+
			"and add --cluster-secret-file FILE, or set %s", minSecret, envSecret)
	case cluster != "" && len(cluster) < minSecret:
		return s, cli.Usagef("the cluster's secret has %d bytes, at least %d are needed: for example, "+
			"head -c 32 /dev/urandom | base64 > FILE", len(cluster), minSecret)
	case cluster != "":
		s.cluster = []byte(cluster)
	}
	return s, nil
}

// readSecret reads a file without the newline at its end, or the environment if no file is given.
func readSecret(flag, file, env string, logger *slog.Logger) (string, error) {
	if file == "" {
		return os.Getenv(env), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", cli.Usagef("%s cannot be read: %v", flag, err)
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	if len(text) == 0 {
		return "", cli.Usagef("%s %s is empty", flag, file)
	}
	warnReadable(flag, file, logger)
	return string(text), nil
}

// warnReadable warns about a file with a secret that everybody can read.
func warnReadable(flag, file string, logger *slog.Logger) {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o004 != 0 {
		logger.Warn("everybody on this machine can read a secret: set its mode to 600", "flag", flag, "file", file)
	}
}
