package loadtest

import (
	"bufio"
	"cmp"
	"debug/buildinfo"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"distmsg/loadtest/result"
)

// machine returns what this process runs on.
func machine() result.Machine {
	m := result.Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Allowed: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0)}
	m.Host, _ = os.Hostname()
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	m.CPU, m.Cores = processor()
	m.Cores = max(m.Cores, m.Allowed)
	var total uint64
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &total); err == nil {
			m.Memory = total << 10
		}
	}
	return m
}

// processor returns the model of the processor and the number of its cores that the kernel uses.
func processor() (model string, cores int) {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(key) {
		case "processor":
			cores++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	return model, cores
}

// versions returns what is known about the software of both sides.
func (r *run) versions() result.Versions {
	v := result.Versions{Protocol: r.kind.Protocol}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Driver, v.DriverGo = version(info), info.GoVersion
	}
	switch {
	case r.inProcess:
		v.Server, v.ServerGo = v.Driver, v.DriverGo
	case r.cfg.ServerPID != 0:
		v.Server, v.ServerGo = ProgramVersion(r.cfg.ServerPID)
	}
	if v.Server == "" {
		v.Server, v.ServerGo = cmp.Or(r.build.Version, r.greeting), r.build.Go
	}
	return v
}

// ProgramVersion returns the version of the program of a process, and that of the Go that built it.
// Both are empty if Go did not build it, or if it cannot be read.
func ProgramVersion(pid int) (program, goVersion string) {
	info, err := buildinfo.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return "", ""
	}
	return version(info), info.GoVersion
}

// version names a program that Go has built: its package, its version, and the commit.
func version(info *debug.BuildInfo) string {
	text := strings.TrimSpace(info.Path + " " + info.Main.Version)
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && !strings.Contains(text, s.Value[:min(len(s.Value), 12)]):
			text += " " + s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true" && !strings.Contains(text, "+dirty"):
			text += "+dirty"
		}
	}
	return text
}
