package main

import (
	"fmt"
	"testing"
)

// A full inbox refuses what it has no room for, and takes more as soon as a page has read what is
// there.
func TestFullInbox(t *testing.T) {
	url := startGateway(t, startRelay(t))
	get(t, url+"/login", "clientId", "1001").want(t, 200, "ok")
	send := func(n int) reply { return get(t, url+"/send", "from", "1001", "to", "1001", "msg", fmt.Sprint(n)) }
	for n := range maxMessages {
		send(n).want(t, 200, "acked")
	}
	full := send(maxMessages)
	full.want(t, 422, "rejected")
	if full.Reason != "too many messages wait for the page" {
		t.Errorf("reason %q", full.Reason)
	}
	page := openEvents(t, url, "1001", "")
	for n := range maxMessages {
		page.want("message", fmt.Sprintf(`{"from":"1001","text":"%d"}`, n))
	}
	send(1000).want(t, 200, "acked")
	page.want("message", `{"from":"1001","text":"1000"}`)
}

// The same in bytes: a text of the largest size fits in four times, and once there is room again.
func TestFullOfBytes(t *testing.T) {
	in, text := newInbox(), string(make([]byte, maxBytes/4))
	for n := range 4 {
		if !in.add(message{Text: text}) {
			t.Fatalf("no room for text %d", n+1)
		}
	}
	if in.add(message{Text: "x"}) {
		t.Error("it takes more than it has room for")
	}
	messages, _, _, _ := in.from(0)
	in.gave(messages[0].number + 1)
	if !in.add(message{Text: text}) {
		t.Error("no room after one was read")
	}
	if in.add(message{Text: "x"}) {
		t.Error("it threw away what no page was given")
	}
}

// All pages of an ID get everything. One that comes again goes on where it was, is told what it has
// missed, and of the end.
func TestSeveralPages(t *testing.T) {
	url := startGateway(t, startRelay(t))
	get(t, url+"/login", "clientId", "1001").want(t, 200, "ok")
	send := func(text string) {
		get(t, url+"/send", "from", "1001", "to", "1001", "msg", text).want(t, 200, "acked")
	}
	first, second := openEvents(t, url, "1001", ""), openEvents(t, url, "1001", "")
	send("one")
	first.want("message", `{"from":"1001","text":"one"}`)
	second.want("message", `{"from":"1001","text":"one"}`)
	afterOne := first.id
	send("two\nlines")
	first.want("message", `{"from":"1001","text":"two\nlines"}`)
	second.want("message", `{"from":"1001","text":"two\nlines"}`)

	again := openEvents(t, url, "1001", afterOne)
	again.want("message", `{"from":"1001","text":"two\nlines"}`)
	for range maxMessages { // one and two make room, since pages have read them
		send("more")
		first.want("message", `{"from":"1001","text":"more"}`)
	}
	late := openEvents(t, url, "1001", afterOne)
	late.want("missed", "1")
	for _, page := range []*eventReader{second, again, late} {
		for range maxMessages {
			page.want("message", `{"from":"1001","text":"more"}`)
		}
	}
	get(t, url+"/logout", "clientId", "1001").want(t, 200, "ok")
	for _, page := range []*eventReader{first, second, again, late} {
		page.want("over", `"logged out"`)
	}
}
