package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory is how many bytes of memory this process may have: those of the machine, or of a
// cgroup that it is in. root is where the file systems proc and sys are, "/" but for tests.
func machineMemory(root string) int64 {
	most := int64(1) << 62
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		most = int64(info.Totalram) * int64(info.Unit)
	}
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return most
	}
	for line := range strings.Lines(string(groups)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		switch {
		case controllers == "": // version 2
			most = min(most, groupMemory(filepath.Join(root, "sys/fs/cgroup"), path, "memory.max"))
		case strings.Contains(","+controllers+",", ",memory,"):
			most = min(most, groupMemory(filepath.Join(root, "sys/fs/cgroup/memory"), path, "memory.limit_in_bytes"))
		}
	}
	return most
}

// groupMemory is the least limit of a cgroup and of those around it. In a container, the path may
// be one of outside, and the container's own limits are at the top.
func groupMemory(top, path, file string) int64 {
	least := int64(1) << 62
	for path = filepath.Clean("/" + path); ; path = filepath.Dir(path) {
		if text, err := os.ReadFile(filepath.Join(top, path, file)); err == nil {
			// "max" is none
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
				least = min(least, n)
			}
		}
		if path == "/" {
			return least
		}
	}
}
