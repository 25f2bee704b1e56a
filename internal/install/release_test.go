package install

import (
	"archive/tar"
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// released is what packaging/release has built for this machine.
type released struct {
	out  string // the directory
	root string // where the deb is unpacked
}

// match returns the one file in the directory that matches a pattern.
func (r *released) match(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.out, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v; want one file", pattern, found, err)
	}
	return found[0]
}

var programs = []string{"relay", "loadtest", "conformance"}

// The packages hold all that they should, and it works.
func TestRelease(t *testing.T) {
	r := &released{out: t.TempDir(), root: t.TempDir()}
	run(t, "packaging/release", "-L", "-o", r.out, runtime.GOARCH)
	run(t, "dpkg-deb", "--extract", r.match(t, "*.deb"), r.root)
	t.Run("files", r.testFiles)
	t.Run("programs", r.testPrograms)
	t.Run("configuration", r.testConfiguration)
	t.Run("unit", r.testUnit)
	t.Run("rpm", r.testRPM)
	t.Run("tarball", r.testTarball)
	t.Run("modules", r.testModules)
	cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = r.out
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// files are the files of a package, besides those in doc, without the slash at the beginning.
func files() []string {
	all := []string{"usr/lib/systemd/system/relay.service", "etc/distmsg/relay.yaml", "usr/share/man/man1/relay.1.gz"}
	for _, p := range programs {
		all = append(all, "usr/bin/"+p, "usr/share/bash-completion/completions/"+p,
			"usr/share/zsh/vendor-completions/_"+p, "usr/share/fish/vendor_completions.d/"+p+".fish")
	}
	return all
}

func (r *released) testFiles(t *testing.T) {
	for _, name := range files() {
		if info, err := os.Stat(filepath.Join(r.root, name)); err != nil || info.Size() == 0 {
			t.Errorf("the deb has no %s, or it is empty: %v", name, err)
		}
	}
	control := t.TempDir()
	run(t, "dpkg-deb", "--control", r.match(t, "*.deb"), control)
	if got := read(t, filepath.Join(control, "conffiles")); got != "/etc/distmsg/relay.yaml\n" {
		t.Errorf("files that an upgrade keeps: %q", got)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		run(t, "sh", "-n", filepath.Join(control, script))
	}
}

func (r *released) testPrograms(t *testing.T) {
	revision := strings.TrimSpace(run(t, "git", "rev-parse", "HEAD"))
	settings := map[string]string{"vcs.revision": revision, "-trimpath": "true", "CGO_ENABLED": "0"}
	if repository, err := os.Stat(filepath.Join(root, ".git")); err != nil || !repository.IsDir() {
		// Go does not see the repository of a linked worktree, nor that of a copy.
		delete(settings, "vcs.revision")
		revision = "(devel)"
	}
	for _, p := range programs {
		file := filepath.Join(r.root, "usr/bin", p)
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for key, want := range settings {
			i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == key })
			if i < 0 || info.Settings[i].Value != want {
				t.Errorf("%s was built with %v, want %s=%s", p, info.Settings, key, want)
			}
		}
		program, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		dynamic := slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		if dynamic || program.Section(".symtab") != nil {
			t.Errorf("%s is not static and stripped", p)
		}
		if version := run(t, file, "--version"); !strings.Contains(version, revision[:min(12, len(revision))]) {
			t.Errorf("%s --version says %q, want the revision %s", p, version, revision)
		}
	}
}

// The node would start with the configuration that is shipped.
func (r *released) testConfiguration(t *testing.T) {
	relay, config := filepath.Join(r.root, "usr/bin/relay"), filepath.Join(r.root, "etc/distmsg/relay.yaml")
	if out := run(t, relay, "config", "check", config); !strings.Contains(out, "ok") {
		t.Errorf("config check says %q", out)
	}
	// What is commented out has names of flags, too.
	help := run(t, relay, "serve", "--help")
	for _, m := range regexp.MustCompile(`(?m)^#? ?([a-z-]+): `).FindAllStringSubmatch(read(t, config), -1) {
		if !strings.Contains(help, "--"+m[1]+" ") {
			t.Errorf("the configuration names %s, which is no flag", m[1])
		}
	}
}

// maxExposure is the score of systemd-analyze security that the unit may have, times 10: 0 is best,
// and 100 is a unit without any restriction.
const maxExposure = "15"

func (r *released) testUnit(t *testing.T) {
	text := read(t, filepath.Join(r.root, "usr/lib/systemd/system/relay.service"))
	// The programs that the unit names are not installed here.
	unit := filepath.Join(t.TempDir(), "relay.service")
	text = strings.ReplaceAll(text, "/usr/bin/relay", filepath.Join(r.root, "usr/bin/relay"))
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "systemd-analyze", "verify", "--man=no", unit); strings.Contains(out, "relay.service") {
		t.Errorf("systemd-analyze verify says %s", out)
	}
	run(t, "systemd-analyze", "security", "--offline=true", "--threshold="+maxExposure, unit)

	timeout := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindStringSubmatch(text)
	var config map[string]any
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(r.root, "etc/distmsg/relay.yaml"))), &config); err != nil || timeout == nil {
		t.Fatal(err, timeout)
	}
	stop, err := time.ParseDuration(timeout[1] + "s")
	drain, err2 := time.ParseDuration(config["drain-timeout"].(string))
	if err := errors.Join(err, err2); err != nil || stop <= drain {
		t.Errorf("systemd waits %v for a drain of %v, %v", stop, drain, err)
	}
}

func (r *released) testRPM(t *testing.T) {
	list := strings.Fields(run(t, "rpm", "-qp", "--nosignature", "--list", r.match(t, "*.rpm")))
	for _, name := range files() {
		if !slices.Contains(list, "/"+name) {
			t.Errorf("the rpm has no %s", name)
		}
	}
	if got := run(t, "rpm", "-qp", "--nosignature", "--configfiles", r.match(t, "*.rpm")); got != "/etc/distmsg/relay.yaml\n" {
		t.Errorf("files that an upgrade keeps: %q", got)
	}
}

func (r *released) testTarball(t *testing.T) {
	file, err := os.Open(r.match(t, "*.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for in := tar.NewReader(unzipped); ; {
		header, err := in.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	for _, name := range files() {
		if !slices.Contains(names, name) {
			t.Errorf("the tarball has no %s", name)
		}
	}
}

// The list of modules names what the program is built from.
func (r *released) testModules(t *testing.T) {
	for _, p := range programs {
		var bom struct {
			BOMFormat  string
			Components []struct{ Name, Version string }
		}
		if err := json.Unmarshal([]byte(read(t, r.match(t, p+"_*.cdx.json"))), &bom); err != nil || bom.BOMFormat != "CycloneDX" {
			t.Fatalf("%s: %v, %q", p, err, bom.BOMFormat)
		}
		info, err := buildinfo.ReadFile(filepath.Join(r.root, "usr/bin", p))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range info.Deps {
			if !slices.Contains(bom.Components, struct{ Name, Version string }{m.Path, m.Version}) {
				t.Errorf("the list of modules in %s does not have %s %s", p, m.Path, m.Version)
			}
		}
	}
}
