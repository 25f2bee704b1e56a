package admin

import (
	"net"
	"net/http"
	"slices"
	"strings"
)

// A web page can make its own name resolve to this machine and then read the server's answers (DNS
// rebinding). The Host header of such a request has the page's name, which is neither localhost nor
// an IP address.

// checkHost refuses requests for other hosts than this server. A server that listens on more than
// loopback may have names that it does not know, so it accepts all names, unless it was given a
// list.
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
			writeError(w, r, refuse(http.StatusMisdirectedRequest, "use its IP address or localhost, or add the name to --admin-host", "this server is not %q", host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName returns a host without its port, brackets, zone and final dot, in lower case. An
// HTTP/1.0 request may have no host.
func hostName(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]")
	}
	host, _, _ = strings.Cut(host, "%")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
