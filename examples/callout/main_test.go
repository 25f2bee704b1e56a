package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestService(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("alice:wonderland\nbob:builder\n\nnobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		users, auth, body string
		code              int
		want              string
	}{
		"right":         {users, "Bearer x", `{"credentials":"YWxpY2U6d29uZGVybGFuZA==","remote":"10.0.0.1"}`, http.StatusOK, `{"name":"alice","ids":["alice","alice:*"],"expires_in":600}`},
		"wrong":         {users, "Bearer x", `{"credentials":"YWxpY2U6d29uZGVy"}`, http.StatusForbidden, ""},
		"no password":   {users, "Bearer x", `{"credentials":"bm9ib2R5"}`, http.StatusForbidden, ""},
		"nothing":       {users, "Bearer x", `{"credentials":""}`, http.StatusForbidden, ""},
		"another relay": {users, "Bearer y", `{"credentials":"YWxpY2U6d29uZGVybGFuZA=="}`, http.StatusNotFound, ""},
		"garbage":       {users, "Bearer x", `{"credentials":7}`, http.StatusBadRequest, ""},
		"no users":      {users + "2", "Bearer x", `{"credentials":"YWxpY2U6d29uZGVybGFuZA=="}`, http.StatusInternalServerError, ""},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tc.body))
		r.Header.Set("Authorization", tc.auth)
		w := httptest.NewRecorder()
		service(tc.users, "Bearer x").ServeHTTP(w, r)
		if w.Code != tc.code || strings.TrimSpace(w.Body.String()) != tc.want {
			t.Errorf("%s: %d %s, want %d %s", name, w.Code, w.Body, tc.code, tc.want)
		}
	}
}
