package deploy

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// relay accepts what each of the manifests gives to it.
func TestSettings(t *testing.T) {
	relay := program(filepath.Join(t.TempDir(), "relay"))
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "..", "-o", string(relay), "./cmd/relay")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("Kubernetes", relay.testPods)
	t.Run("compose", relay.testCompose)
}

// program is the file of relay.
type program string

// accepts fails the test unless relay would start with these settings. They may name files below
// /etc/distmsg; those that the test does not have are made up.
func (p program) accepts(t *testing.T, name, config string, env map[string]string, args ...string) {
	t.Helper()
	etc := t.TempDir()
	p.fill(t, etc)
	place := func(s string) string { return strings.ReplaceAll(s, "/etc/distmsg", etc) }
	file := filepath.Join(etc, "relay.yaml")
	if err := os.WriteFile(file, []byte(place(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	check := exec.CommandContext(t.Context(), string(p), append([]string{"config", "check", file}, args...)...)
	check.Env = []string{}
	for _, key := range slices.Sorted(maps.Keys(env)) {
		check.Env = append(check.Env, key+"="+place(env[key]))
	}
	out, err := check.CombinedOutput()
	if err != nil || strings.Contains(string(out), "level=WARN") {
		t.Errorf("%s: relay config check: %v\n%s\n%s\n%q", name, err, out, config, check.Env)
	}
}

// fill creates the files that manifests mount.
func (p program) fill(t *testing.T, etc string) {
	t.Helper()
	secret := strings.Repeat("a secret of the test ", 3) + "\n"
	cert, key := certificate(t)
	for name, text := range map[string]string{
		"secret/cluster-secret": secret, "registry/password": secret,
		"tls/tls.crt": cert, "tls/tls.key": key, "tls/ca.crt": cert,
	} {
		path := filepath.Join(etc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tokens := filepath.Join(etc, "tokens", "tokens")
	if err := os.Mkdir(filepath.Dir(tokens), 0o700); err != nil {
		t.Fatal(err)
	}
	add := exec.CommandContext(t.Context(), string(p), "token", "add", "shop", "--auth-token-file", tokens)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// testPods tries what the manifests for Kubernetes give to relay.
func (p program) testPods(t *testing.T) {
	for name, objects := range deployments(t) {
		pod := one[*apps.StatefulSet](t, name, objects).Spec.Template.Spec
		config := ""
		for _, o := range objects {
			if m, ok := o.(*core.ConfigMap); ok && m.Data["relay.yaml"] != "" {
				config = m.Data["relay.yaml"]
			}
		}
		container := pod.Containers[0]
		if want := []string{"--config", "/etc/distmsg/relay.yaml"}; !slices.Equal(container.Args[:2], want) {
			t.Errorf("%s: the arguments are %q, want %q first", name, container.Args, want)
		}
		p.accepts(t, name, config, environment(container), container.Args[2:]...)
	}
}

var reference = regexp.MustCompile(`\$\(([A-Z_]+)\)`)

// environment returns the environment of a container of the pod distmsg-0.
func environment(c core.Container) map[string]string {
	env := make(map[string]string)
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			value = map[string]string{"metadata.name": "distmsg-0", "metadata.namespace": "prod"}[e.ValueFrom.FieldRef.FieldPath]
		}
		env[e.Name] = reference.ReplaceAllStringFunc(value, func(r string) string { return env[r[2:len(r)-1]] })
	}
	return env
}

// composed is the part of compose.yaml that the tests look at.
type composed struct {
	Services map[string]struct {
		Image       string
		Environment map[string]string
		Volumes     []string
		Profiles    []string
	}
}

// testCompose tries what compose.yaml gives to relay, and looks for the files that it mounts.
func (p program) testCompose(t *testing.T) {
	text, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file composed
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	nodes := 0
	for name, service := range file.Services {
		for _, volume := range service.Volumes {
			path, _, _ := strings.Cut(volume, ":")
			if _, err := os.Stat(filepath.Join("compose", path)); err != nil {
				t.Errorf("%s mounts %s: %v", name, path, err)
			}
		}
		if service.Image != "distmsg" || len(service.Profiles) > 0 {
			continue
		}
		nodes++
		service.Environment["DISTMSG_CLUSTER_SECRET"] = strings.Repeat("secret", 5)
		p.accepts(t, name, "", service.Environment)
	}
	if nodes != 3 {
		t.Errorf("%d nodes, want 3", nodes)
	}
}
