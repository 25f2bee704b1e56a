package main

import (
	"sync"
	"time"
)

// The limits of an inbox.
const (
	maxMessages = 256
	maxBytes    = 4 << 20 // of text
)

// message is what one user wrote to another.
type message struct {
	number uint64
	From   string `json:"from"`
	Text   string `json:"text"`
}

// inbox holds what arrived for one ID. Any number of pages read it, each at its own pace, and none
// of them delays the others or the senders. While there is no page, messages wait. If there are too
// many, the inbox accepts no more: it discards no message that no page has received. A message that
// a page has received stays for the other pages as long as there is room.
type inbox struct {
	mu       sync.Mutex
	messages []message
	bytes    int           // of their texts
	next     uint64        // number of the next message
	read     uint64        // messages below this number were given to a page
	closed   string        // why nothing comes any more; "" while the ID is logged in
	news     chan struct{} // closed when something has changed
}

// newInbox starts to count at the current time, so that new messages count as unread for a page
// that comes back after another login.
func newInbox() *inbox {
	return &inbox{next: uint64(time.Now().UnixMicro()), news: make(chan struct{})}
}

// add stores a message. It returns false if there is no room for it.
func (in *inbox) add(m message) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.messages) == maxMessages || len(in.messages) > 0 && in.bytes+len(m.Text) > maxBytes {
		oldest := &in.messages[0]
		if oldest.number >= in.read {
			return false
		}
		in.bytes -= len(oldest.Text)
		*oldest = message{} // otherwise the array would keep the text
		in.messages = in.messages[1:]
	}
	m.number = in.next
	in.next++
	in.messages, in.bytes = append(in.messages, m), in.bytes+len(m.Text)
	in.tell()
	return true
}

// from returns the messages from number on, how many were missed between number and the first of
// them, and, if no more will come, why. news is closed when there may be something new.
func (in *inbox) from(number uint64) (messages []message, missed int, closed string, news <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	first := in.next - uint64(len(in.messages))
	if number > 0 && number < first {
		missed = int(first - number)
	}
	skip := min(max(number, first)-first, uint64(len(in.messages)))
	return append(messages, in.messages[skip:]...), missed, in.closed, in.news
}

// gave records that a page has received all messages below number.
func (in *inbox) gave(number uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.read = max(in.read, number)
}

// close records that no more messages come, and why.
func (in *inbox) close(why string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = why
	in.tell()
}

// wake makes all pages check again.
func (in *inbox) wake() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.tell()
}

func (in *inbox) tell() {
	close(in.news)
	in.news = make(chan struct{})
}
