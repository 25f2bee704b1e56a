package engine

import (
	"context"
	"net"
	"testing"
	"time"

	"distmsg/codec"
)

func rd(t *testing.T, c net.Conn) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5*time.Second))
	var b []byte
	tmp := make([]byte, 4096)
	for {
		body, _, err := codec.Split(b, 1<<21)
		if err != nil { t.Fatal(err) }
		if body != nil { return body }
		n, err := c.Read(tmp[:1])
		if err != nil { t.Fatal(err) }
		b = append(b, tmp[:n]...)
	}
}

func TestSmoke(t *testing.T) {
	for _, loops := range []int{1,2} {
	e, err := New(Config{Addr: "127.0.0.1:0", Loops: loops})
	if err != nil { t.Fatal(err) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	<-e.Ready()
	dial := func(id string) net.Conn {
		c, err := net.Dial("tcp", e.Addr().String())
		if err != nil { t.Fatal(err) }
		c.Write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
		var w codec.Welcome
		if err := codec.DecodeWelcome(rd(t, c), &w); err != nil { t.Fatal(err) }
		c.Write(codec.AppendBind(nil, 7, 0, []codec.IDEpoch{{ID: []byte(id)}}))
		var r codec.Results
		if err := codec.DecodeResults(rd(t, c), codec.KindBound, &r); err != nil { t.Fatal(err) }
		v, _ := r.All.Next()
		t.Log(w.Node, w.Limits, r.Seq, v)
		return c
	}
	a, b := dial("a"), dial("b")
	a.Write(codec.AppendSend(nil, &codec.Send{Seq: 5, To: []byte("b"), From: []byte("a"), Flags: 1, Payload: []byte("hi")}))
	var d codec.Deliver
	if err := codec.DecodeDeliver(rd(t, b), &d); err != nil { t.Fatal(err) }
	t.Logf("%+v", d)
	b.Write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: 1, Reply: []byte("yo")}))
	var o codec.Outcome
	if err := codec.DecodeOutcome(rd(t, a), &o); err != nil { t.Fatal(err) }
	t.Logf("%+v", o)
	a.Write(codec.AppendSend(nil, &codec.Send{Seq: 6, To: []byte("x"), From: []byte("a"), Flags: 1, Payload: []byte("hi")}))
	if err := codec.DecodeOutcome(rd(t, a), &o); err != nil { t.Fatal(err) }
	t.Logf("%+v", o)
	a.Write([]byte{0,0,0,0})
	var ef codec.ErrorFrame
	if err := codec.DecodeError(rd(t, a), &ef); err != nil { t.Fatal(err) }
	t.Logf("%+v", ef)
	t.Logf("%+v", e.Stats())
	cancel()
	if err := <-done; err != nil { t.Fatal(err) }
	}
}
