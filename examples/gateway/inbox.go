package main

import (
	"sync"
	"time"
)

// What an inbox keeps at most.
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

// inbox is what arrived for one ID. Any number of pages read it, each at its own pace; none of them
// holds up the others, or who sends. While there is no page, messages wait. When they are too many,
// no more are accepted: nothing is thrown away that no page was given. What one was given stays for
// the others as long as there is room.
type inbox struct {
	mu       sync.Mutex
	messages []message
	bytes    int           // of their texts
	next     uint64        // number of the next message
	read     uint64        // messages below this number were given to a page
	closed   string        // why nothing comes any more; "" while the ID is logged in
	news     chan struct{} // closed when something has changed
}

// newInbox begins to count at the time, so that a page which comes back after another login has not
// read what is new.
func newInbox() *inbox {
	return &inbox{next: uint64(time.Now().UnixMicro()), news: make(chan struct{})}
}

// add takes a message in. It reports false if there is no room for it.
func (in *inbox) add(m message) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.messages) == maxMessages || len(in.messages) > 0 && in.bytes+len(m.Text) > maxBytes {
		oldest := &in.messages[0]
		if oldest.number >= in.read {
			return false
		}
		in.bytes -= len(oldest.Text)
		*oldest = message{} // or the array would keep the text
		in.messages = in.messages[1:]
	}
	m.number = in.next
	in.next++
	in.messages, in.bytes = append(in.messages, m), in.bytes+len(m.Text)
	in.tell()
	return true
}

// from returns the messages from number on, how many there were between number and the first of
// them, and, when there is nothing more to come, why. news is closed when it is worth calling
// again.
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

// gave notes that a page was given all messages below number.
func (in *inbox) gave(number uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.read = max(in.read, number)
}

// close says that nothing comes any more, and why.
func (in *inbox) close(why string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = why
	in.tell()
}

// wake makes all pages look again.
func (in *inbox) wake() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.tell()
}

func (in *inbox) tell() {
	close(in.news)
	in.news = make(chan struct{})
}
