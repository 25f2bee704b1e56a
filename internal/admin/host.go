package admin

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// A page in a browser can have its own name resolve to this machine and then read what the server
// answers (DNS rebinding). The Host header of such a request is the page's name. It is neither
// localhost nor an IP address.

// checkHost refuses requests for hosts that are not this server. A server that listens on more than
// loopback goes by names that it does not know: it accepts them all, unless it was given a list.
func checkHost(next http.Handler, listens net.Addr, hosts []string) http.Handler {
	tcp, ok := listens.(*net.TCPAddr)
	if len(hosts) == 0 && !(ok && tcp.IP.IsLoopback()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostName(r.Host)
		if host != "" && host != "localhost" && net.ParseIP(host) == nil && !slices.ContainsFunc(hosts, func(h string) bool {
			return hostName(h) == host
		}) {
			http.Error(w, fmt.Sprintf("this server is not %q: ask it by its IP address or as localhost, or add the name to --admin-host", host),
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName is a host without its port, brackets, zone and final dot, in lower case. HTTP/1.0 may
// come without a host.
func hostName(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]")
	}
	host, _, _ = strings.Cut(host, "%")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
