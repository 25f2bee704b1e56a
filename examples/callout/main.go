// Command callout is a service that a relay asks who its clients are (--auth-callout-url). It knows
// its users from a file, and is meant to be read: docs/security.md says what it is asked, and what
// it may answer.
package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	addr := flag.String("http", "127.0.0.1:7030", "`address` to serve HTTP on")
	users := flag.String("users", "users", "`file` with a line NAME:PASSWORD for each user; it is read again for each question")
	secret := flag.String("secret-file", "", "`file` with the secret that the relay has to show (default: none)")
	flag.Parse()
	bearer := ""
	if *secret != "" {
		text, err := os.ReadFile(*secret)
		if err != nil {
			fail(err)
		}
		bearer = "Bearer " + strings.TrimSpace(string(text))
	}
	server := http.Server{Addr: *addr, Handler: service(*users, bearer), ReadTimeout: 5 * time.Second}
	fmt.Printf("asked at http://%s\n", *addr)
	fail(server.ListenAndServe())
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "callout:", err)
	os.Exit(1)
}

// question is what a relay asks. It also says the remote address and the client certificate.
type question struct {
	Credentials []byte `json:"credentials"` // base64 in JSON
}

// answer is an identity. It may also have lookup, watch (true if left out) and limits.
type answer struct {
	Name      string   `json:"name"`
	IDs       []string `json:"ids"`        // patterns; every ID if left out
	ExpiresIn int      `json:"expires_in"` // seconds; then the relay asks again
}

// service answers questions: 200 with an identity, or 403. A relay takes everything else as a
// failure, and asks its client to come again.
func service(users, bearer string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q question
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&q)
		known, err2 := os.ReadFile(users)
		switch {
		case bearer != "" && !equal(r.Header.Get("Authorization"), bearer):
			w.WriteHeader(http.StatusNotFound)
		case err != nil:
			w.WriteHeader(http.StatusBadRequest)
		case err2 != nil:
			w.WriteHeader(http.StatusInternalServerError)
		case !has(string(known), string(q.Credentials)):
			w.WriteHeader(http.StatusForbidden)
		default:
			name, _, _ := strings.Cut(string(q.Credentials), ":")
			json.NewEncoder(w).Encode(answer{Name: name, IDs: []string{name, name + ":*"}, ExpiresIn: 600})
		}
	})
}

// has reports whether one of the lines is what the client shows.
func has(lines, shown string) (found bool) {
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, ":") && equal(line, shown) {
			found = true
		}
	}
	return found
}

// equal compares in a time that says nothing about where the texts differ.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
