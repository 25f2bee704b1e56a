package dashboard

import (
	"embed"
	"net/http"
	"path"

	"distmsg/internal/uplot"
)

//go:embed page
var files embed.FS

// policy lets the page load and ask only what this server has, and run no script that stands in
// the page: an ID may be a piece of HTML. Nobody may show the page in a frame, where clicks could
// be stolen.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// types are the types of files, which must not depend on the machine.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
	".txt": "text/plain; charset=utf-8",
}

// Page returns a handler for the page at / and its parts below /page/. They hold nothing secret.
func Page() http.Handler {
	mux := http.NewServeMux()
	for _, name := range []string{"index.html", "page.css", "page.js", "api.js", "charts.js", "dom.js", "find.js", "picture.js"} {
		text, err := files.ReadFile("page/" + name)
		if err != nil {
			panic(err) // the program was built without it
		}
		at := "/page/" + name
		if name == "index.html" {
			at = "/{$}"
		}
		serve(mux, at, path.Ext(name), string(text))
	}
	serve(mux, "/page/uplot.js", ".js", uplot.JS())
	serve(mux, "/page/uplot.css", ".css", uplot.CSS())
	serve(mux, "/page/uplot-license.txt", ".txt", uplot.License())
	return mux
}

// serve adds a file.
func serve(mux *http.ServeMux, at, ext, text string) {
	mux.HandleFunc("GET "+at, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", types[ext])
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // a node may be replaced by a newer one
		_, _ = w.Write([]byte(text))
	})
}
