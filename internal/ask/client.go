package ask

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"distmsg/internal/admin"
)

const (
	apiPath   = "/api/v1/"
	maxAnswer = 64 << 20 // bytes
	// How much longer than the answer may take a client waits for it.
	grace = 2 * time.Second
)

// Client asks the admin API of one node. Any goroutine may use it.
type Client struct {
	url     string // of the admin port, without a slash at the end
	token   string // empty: none
	timeout time.Duration
	http    *http.Client
}

// newClient returns a client. secure is for https.
func newClient(base, token string, timeout time.Duration, secure *tls.Config) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("--admin %q is not the URL of an admin port, as in http://127.0.0.1:7401", base)
	}
	return &Client{
		url: u.Scheme + "://" + u.Host, token: token, timeout: timeout,
		// An order must not go to another server than the one that was named.
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{TLSClientConfig: secure, DialContext: (&net.Dialer{Timeout: timeout}).DialContext},
		},
	}, nil
}

// ask sends a question and returns the answer as JSON.
func (c *Client) ask(ctx context.Context, name string, query url.Values) (answer []byte, err error) {
	if query == nil {
		query = make(url.Values)
	}
	query.Set("timeout", c.timeout.String())
	ctx, cancel := context.WithTimeout(ctx, c.timeout+grace)
	defer cancel()
	response, err := c.do(ctx, http.MethodGet, name+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return c.read(response.Body)
}

// order sends a change, and returns the answer as JSON.
func (c *Client) order(ctx context.Context, name string, body any) (answer []byte, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	response, err := c.do(ctx, http.MethodPost, name, text)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return c.read(response.Body)
}

// orderTimeout is longer than the API's own, so that the API says what was not done.
const orderTimeout = 15 * time.Second

func (c *Client) read(body io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("the answer of %s broke off: %w", c.url, err)
	}
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", c.url, maxAnswer)
	}
	return text, nil
}

// stream asks for events, and calls heard with each until ctx or the stream ends. The former is no
// error.
func (c *Client) stream(ctx context.Context, name string, query url.Values, heard func(event []byte) error) error {
	response, err := c.do(ctx, http.MethodGet, name+"?"+query.Encode(), nil)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	kind := ""
	for lines.Scan() {
		line := lines.Bytes()
		if text, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
			kind = string(text)
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		if kind == "problem" {
			return c.problem(data, response.Status)
		}
		if err := heard(data); err != nil {
			return err
		}
	}
	if err := ignoreEnd(ctx, lines.Err()); err != nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%s has ended the stream", c.url)
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// do sends a request. Answers other than 200 are errors.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+apiPath+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreached(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	text, err := c.read(response.Body)
	if err != nil {
		return nil, err
	}
	return nil, c.problem(text, response.Status)
}

// unreached says what to do if there is no answer.
func (c *Client) unreached(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no node listens at --admin %s: is it running, and is that its --admin-listen? (%w)", c.url, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from --admin %s within %v: raise --timeout, or ask another node", c.url, c.timeout+grace)
	}
	return fmt.Errorf("--admin %s: %w", c.url, err)
}

// problem makes an error of an answer that says what is wrong.
func (c *Client) problem(text []byte, status string) error {
	var p admin.Problem
	if err := json.Unmarshal(text, &p); err != nil || p.Error == "" {
		return fmt.Errorf("--admin %s is not the admin port of a node: it says %s %s", c.url, status, visible(firstLine(text)))
	}
	if p.Hint != "" {
		p.Error += ": " + p.Hint
	}
	return errors.New(visible(p.Error))
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line[:min(len(line), 200)]
}
