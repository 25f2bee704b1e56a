package main

import (
	"context"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"distmsg/client"
)

// maxUnderWay is how many messages of a user may be under way, and how many may wait for one who
// reads slowly.
const maxUnderWay = 64

// user is one who is connected. One goroutine reads from the WebSocket and another one writes to
// it, so that a slow user holds up nobody else.
type user struct {
	id       string
	conn     *websocket.Conn
	patience time.Duration
	incoming chan incoming
	outcomes chan event    // has room for all that are under way
	underWay chan struct{} // has one for each
}

// incoming is a message to the user, and who is to hear that it was written.
type incoming struct {
	event
	answer *client.Responder
}

func newUser(id string, conn *websocket.Conn, patience time.Duration) *user {
	return &user{id, conn, patience, make(chan incoming, maxUnderWay), make(chan event, maxUnderWay), make(chan struct{}, maxUnderWay)}
}

// receive is the handler of the user's name. It does not wait: the sender hears acked when the user
// has the message.
func (u *user) receive(_ context.Context, d *client.Delivery) {
	m := incoming{event{From: d.From, Text: string(d.Payload)}, d.Defer()}
	select {
	case u.incoming <- m:
	default:
		m.answer.Reject("the user reads too slowly")
	}
}

// readAll sends what the user writes, until the connection ends.
func (u *user) readAll(ctx context.Context, session *client.Session) {
	for {
		var m event
		if wsjson.Read(ctx, u.conn, &m) != nil {
			return
		}
		select { // while so many are under way, nothing is read
		case u.underWay <- struct{}{}:
		case <-ctx.Done():
			return
		}
		sending, cancel := context.WithTimeout(ctx, sendTimeout)
		session.SendAsync(sending, client.Message{From: u.id, To: m.To, Payload: []byte(m.Text)}, func(_ client.Reply, err error) {
			cancel()
			u.outcomes <- ended(m.N, err)
		})
	}
}

// writeAll writes to the user, until the connection ends. One who does not read is cut off.
func (u *user) writeAll(ctx context.Context) {
	for {
		var err error
		select {
		case m := <-u.incoming:
			if err = u.write(ctx, m.event); err == nil {
				m.answer.Accept()
			} else {
				m.answer.Reject("the user is gone")
			}
		case e := <-u.outcomes:
			err = u.write(ctx, e)
			<-u.underWay
		case <-ctx.Done():
			return
		}
		if err != nil {
			u.conn.CloseNow()
			return
		}
	}
}

func (u *user) write(ctx context.Context, e event) error {
	ctx, cancel := context.WithTimeout(ctx, u.patience)
	defer cancel()
	return wsjson.Write(ctx, u.conn, e)
}
