package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"distmsg/client"
	"distmsg/codec"
)

// event is one message on a WebSocket: a message to a user {to, text, n}, a message from a user
// {from, text}, or the outcome of message {n}.
type event struct {
	To      string `json:"to,omitempty"`
	From    string `json:"from,omitempty"`
	Text    string `json:"text,omitempty"`
	N       int64  `json:"n,omitempty"`
	Outcome string `json:"outcome,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// ended returns the event that reports the outcome of a message to its sender.
func ended(n int64, err error) event {
	failed := (*client.Error)(nil)
	switch {
	case err == nil:
		return event{N: n, Outcome: codec.CodeAcked.String()}
	case errors.As(err, &failed):
		return event{N: n, Outcome: failed.Code.String(), Reason: failed.Reason}
	}
	return event{N: n, Outcome: "not sent", Reason: err.Error()}
}

// talk is a user at a terminal: the line "bob good morning" sends "good morning" to bob. It returns
// when the connection ends, or when the input has ended and each message has its outcome.
func talk(ctx context.Context, addr, as, token string, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	conn, resp, err := websocket.Dial(ctx, "ws://"+addr+"/chat?"+url.Values{"id": {as}, "token": {token}}.Encode(), nil)
	if err != nil {
		if resp != nil {
			why, _ := io.ReadAll(resp.Body)
			err = errors.New(strings.TrimSpace(string(why)))
		}
		return fmt.Errorf("%s: %w", addr, err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxFrame)
	lines, events, ended := make(chan string), make(chan event), make(chan error, 1)
	go readLines(ctx, in, lines)
	go func() {
		for {
			var e event
			if err := wsjson.Read(ctx, conn, &e); err != nil {
				ended <- err
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	fmt.Fprintf(out, "you are %s; type a name and a text\n", as)
	var sent, open int64
	for lines != nil || open > 0 {
		select {
		case line, more := <-lines:
			if !more {
				lines = nil
				continue
			}
			to, text, _ := strings.Cut(line, " ")
			sent, open = sent+1, open+1
			if err := wsjson.Write(ctx, conn, event{To: to, Text: text, N: sent}); err != nil {
				return err
			}
		case e := <-events:
			if e.From != "" {
				fmt.Fprintf(out, "%s: %s\n", e.From, e.Text)
				continue
			}
			open--
			fmt.Fprintln(out, strings.TrimSpace(fmt.Sprintf("(%d) %s %s", e.N, e.Outcome, e.Reason)))
		case err := <-ended:
			if closed := (websocket.CloseError{}); errors.As(err, &closed) {
				err = errors.New(closed.Reason)
			}
			return err
		case <-ctx.Done():
			return nil
		}
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}

func readLines(ctx context.Context, in io.Reader, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(in); s.Scan(); {
		select {
		case lines <- s.Text():
		case <-ctx.Done():
			return
		}
	}
}
