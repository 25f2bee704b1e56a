package admin

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

// The page is there with a strict policy, and foreign pages cannot use its parts. A link to it may
// stand anywhere.
func TestPage(t *testing.T) {
	url := apiServer(t, "127.0.0.1:0", newFakeOperator(), Access{}, nil)
	for _, tc := range []struct {
		name, path, host string
		header           map[string]string
		status           int
	}{
		{"the page", "/", "", nil, http.StatusOK},
		{"a part of it", "/page/page.js", "", map[string]string{"Sec-Fetch-Site": "same-origin"}, http.StatusOK},
		{"the charts", "/page/uplot.js", "", nil, http.StatusOK},
		{"a link of another site", "/", "", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, http.StatusOK},
		{"a script of another site", "/page/page.js", "", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, http.StatusForbidden},
		{"another origin", "/", "", map[string]string{"Origin": "http://attacker.example"}, http.StatusForbidden},
		{"another host", "/", "attacker.example", nil, http.StatusMisdirectedRequest},
		{"nothing", "/page/nothing.js", "", nil, http.StatusNotFound},
		{"a folder", "/page/", "", nil, http.StatusNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range tc.header {
				req.Header.Set(name, value)
			}
			req.Host = tc.host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tc.status {
				t.Fatalf("%d, want %d", resp.StatusCode, tc.status)
			}
			policy := resp.Header.Get("Content-Security-Policy")
			if tc.status == http.StatusOK && (!strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") || strings.Contains(policy, "unsafe")) {
				t.Errorf("the policy is %q", policy)
			}
		})
	}
}

// The stream of views begins at once. Whoever may not ask gets none.
func TestLive(t *testing.T) {
	o := newFakeOperator()
	url := apiServer(t, "127.0.0.1:0", o, Access{}, nil)
	resp, err := http.Get(url + "/api/v1/live")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	event := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan() && !strings.HasPrefix(lines.Text(), "data: "); {
		event += lines.Text() + "\n"
	}
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" || !strings.HasSuffix(event, "\nevent: view\n") {
		t.Errorf("%s: %q", kind, event)
	}
	closed := apiServer(t, "0.0.0.0:0", o, Access{}, nil)
	if status, p, _ := (request{method: "GET", path: "/api/v1/live"}).send(t, http.DefaultClient, closed); status != http.StatusForbidden || p.Error == "" {
		t.Errorf("%d, %+v", status, p)
	}
}
