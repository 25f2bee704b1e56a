package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"distmsg/client"
	"distmsg/engine"
)

// runNode starts a node in this process, for the examples' sake, and returns its address.
func runNode() (addr string, stop func()) {
	e, err := engine.New(engine.Config{Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			log.Fatal(err)
		}
	}()
	<-e.Ready()
	return e.Addr().String(), func() { cancel(); <-done }
}

// attach is the Dial of the examples that are about something else.
func attach(addr string, h client.Handler, ids ...string) *client.Session {
	ctx := context.Background()
	s, err := client.Dial(ctx, client.Config{Nodes: []string{addr}, Handler: h, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Bind(ctx, ids...); err != nil {
		log.Fatal(err)
	}
	return s
}

func ExampleDial() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()

	s, err := client.Dial(ctx, client.Config{
		Nodes:  []string{addr}, // more nodes: the session moves on when its own is gone
		Logger: slog.New(slog.DiscardHandler),
		Handler: func(_ context.Context, d *client.Delivery) {
			fmt.Printf("%s to %s: %s\n", d.From, d.To, d.Payload)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)

	if err := s.Bind(ctx, "alice", "bob"); err != nil {
		log.Fatal(err)
	}
	_, err = s.Send(ctx, client.Message{To: "bob", From: "alice", Payload: []byte("hello")})
	fmt.Println("outcome:", err)
	// Output:
	// alice to bob: hello
	// outcome: <nil>
}

func ExampleSession_Bind() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	first := attach(addr, nil, "alice")
	defer first.Close(ctx)
	second := attach(addr, nil)
	defer second.Close(ctx)

	// By default the newcomer wins. This one is polite:
	err := second.BindWith(ctx, client.BindOptions{RejectNew: true}, "alice", "bob")
	var failed *client.IDError
	if errors.As(err, &failed) {
		for _, f := range failed.Failed {
			fmt.Println(f.ID, "is taken:", errors.Is(f.Err, client.ErrTaken))
		}
	}
	online, err := first.Lookup(ctx, "alice", "bob", "carol")
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range online {
		fmt.Println(p.ID, p.Online())
	}
	// Output:
	// alice is taken: true
	// alice true
	// bob true
	// carol false
}

// A receiver's reply comes back with the outcome.
func ExampleSession_Send_request() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	clock := attach(addr, func(_ context.Context, d *client.Delivery) {
		if string(d.Payload) != "time?" {
			d.Reject("I only know the time")
			return
		}
		d.Reply([]byte("noon"))
	}, "clock")
	defer clock.Close(ctx)
	alice := attach(addr, nil, "alice")
	defer alice.Close(ctx)

	reply, err := alice.Send(ctx, client.Message{To: "clock", From: "alice", Payload: []byte("time?")})
	fmt.Printf("%s, %v\n", reply.Payload, err)
	_, err = alice.Send(ctx, client.Message{To: "clock", From: "alice", Payload: []byte("weather?")})
	fmt.Println(err)
	// Output:
	// noon, <nil>
	// client: rejected: I only know the time
}

func ExampleSendValue() {
	type order struct {
		Item string
		N    int
	}
	type receipt struct{ Cents int }

	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	shop := attach(addr, client.HandleValue(func(_ context.Context, d *client.Delivery, o order) {
		d.ReplyValue(receipt{Cents: 250 * o.N})
	}), "shop")
	defer shop.Close(ctx)
	alice := attach(addr, nil, "alice")
	defer alice.Close(ctx)

	got, err := client.SendValue[receipt](ctx, alice, client.Message{To: "shop", From: "alice"}, order{"tea", 3})
	fmt.Println(got.Cents, err)
	// Output: 750 <nil>
}

// One message to many: each receiver has an outcome of its own.
func ExampleSession_Multicast() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	s := attach(addr, func(_ context.Context, d *client.Delivery) {
		if d.To == "carol" {
			d.Reject("do not disturb")
		}
	}, "alice", "bob", "carol")
	defer s.Close(ctx)

	results, err := s.Multicast(ctx, client.Message{From: "alice", Payload: []byte("dinner?")}, []string{"bob", "carol", "dave"})
	if err != nil {
		log.Fatal(err) // nothing was sent to anybody
	}
	for _, r := range results {
		switch {
		case r.Err == nil:
			fmt.Println(r.ID, "has it")
		case errors.Is(r.Err, client.ErrNoRoute):
			fmt.Println(r.ID, "is not online")
		default:
			fmt.Println(r.ID, r.Err)
		}
	}
	// Output:
	// bob has it
	// carol client: rejected: do not disturb
	// dave is not online
}

// A session hears when the IDs that it watches come and go.
func ExampleSession_Watch() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	changes := make(chan client.Presence, 10)
	s, err := client.Dial(ctx, client.Config{
		Nodes:  []string{addr},
		Logger: slog.New(slog.DiscardHandler),
		OnPresence: func(changed []client.Presence) {
			for _, p := range changed {
				changes <- p
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)
	show := func(p client.Presence) { fmt.Println(p.ID, "is online:", p.Online()) }

	found, err := s.Watch(ctx, "alice")
	if err != nil {
		log.Fatal(err)
	}
	show(found[0])
	other := attach(addr, nil, "alice")
	defer other.Close(ctx)
	show(<-changes)
	if err := other.Unbind(ctx, "alice"); err != nil {
		log.Fatal(err)
	}
	show(<-changes)
	s.Unwatch("alice")
	// Output:
	// alice is online: false
	// alice is online: true
	// alice is online: false
}

// What a session does can be counted as it happens, or looked at from time to time.
func ExampleSession_Stats() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	roundTrips := make(chan client.Outcome, 10) // a histogram by code, in earnest
	s, err := client.Dial(ctx, client.Config{
		Nodes:     []string{addr},
		Logger:    slog.New(slog.DiscardHandler),
		OnOutcome: func(o client.Outcome) { roundTrips <- o },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)
	if err := s.Bind(ctx, "alice"); err != nil {
		log.Fatal(err)
	}
	s.Send(ctx, client.Message{To: "nobody", From: "alice"})
	o := <-roundTrips
	fmt.Println(o.Code, o.RoundTrip > 0)
	st := s.Stats()
	fmt.Println(st.IDs, st.Sent, st.Outcomes[client.CodeNoRoute])
	// Output:
	// no_route true
	// 1 1 1
}

// next says what a program does after a send.
func next(err error) {
	var e *client.Error
	switch {
	case err == nil:
		fmt.Println("acked")
	case errors.As(err, &e) && e.SafeToRetry() && e.Temporary():
		fmt.Println(e.Code, "- send again, after a pause that doubles")
	case errors.As(err, &e) && e.Delivered() == client.DeliveredUnknown:
		fmt.Println(e.Code, "- send again if two copies do no harm")
	case errors.Is(err, client.ErrNoRoute):
		fmt.Println("offline: store it, or Watch the ID")
	default:
		fmt.Println("this message will not get through:", err)
	}
}

// An error says what is known and what may be done about it.
func ExampleError() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	s := attach(addr, func(context.Context, *client.Delivery) {}, "alice", "bob")
	defer s.Close(ctx)

	send := func(m client.Message) {
		_, err := s.Send(ctx, m)
		next(err)
	}
	send(client.Message{To: "bob", From: "alice"})
	send(client.Message{To: "carol", From: "alice"})
	send(client.Message{To: "bob", From: "alice", TTL: time.Nanosecond})
	send(client.Message{To: "bob", From: "mallory"})
	// Output:
	// acked
	// offline: store it, or Watch the ID
	// expired - send again, after a pause that doubles
	// this message will not get through: client: denied: from is not bound by this session
}

func ExampleRetry() {
	addr, stop := runNode()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := attach(addr, func(context.Context, *client.Delivery) {}, "alice", "bob")
	defer s.Close(ctx)

	err := client.Retry(ctx, client.RetryOptions{}, func(ctx context.Context) error {
		_, err := s.Send(ctx, client.Message{To: "bob", From: "alice", Payload: []byte("hello"), TTL: time.Second})
		return err
	})
	fmt.Println(err)
	// Output:
	// <nil>
}

func ExampleSession_SendAsync() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	s := attach(addr, func(context.Context, *client.Delivery) {}, "alice", "bob")
	defer s.Close(ctx)

	outcomes := make(chan error, 3)
	for range 3 {
		s.SendAsync(ctx, client.Message{To: "bob", From: "alice"}, func(_ client.Reply, err error) { outcomes <- err })
	}
	for range 3 {
		fmt.Println(<-outcomes)
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
}

func ExampleSession_Post() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	failed := make(chan string, 1)
	s, err := client.Dial(ctx, client.Config{
		Nodes:        []string{addr},
		Logger:       slog.New(slog.DiscardHandler),
		OnPostFailed: func(_ uint64, err *client.Error) { failed <- err.Code.String() },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)
	if err := s.Bind(ctx, "alice"); err != nil {
		log.Fatal(err)
	}

	if _, err := s.Post(ctx, client.Message{To: "nobody", From: "alice", Payload: []byte("by the way")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("reported:", <-failed)
	// Output: reported: no_route
}

// Close lets what is under way finish, for as long as its context allows.
func ExampleSession_Close() {
	addr, stop := runNode()
	defer stop()
	s := attach(addr, func(context.Context, *client.Delivery) {}, "alice")

	outcome := make(chan error, 1)
	s.SendAsync(context.Background(), client.Message{To: "alice", From: "alice"}, func(_ client.Reply, err error) { outcome <- err })

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println("closed:", s.Close(ctx))
	fmt.Println("in flight before:", <-outcome)
	_, err := s.Send(ctx, client.Message{To: "alice", From: "alice"})
	fmt.Println("after:", errors.Is(err, client.ErrClosed))
	// Output:
	// closed: <nil>
	// in flight before: <nil>
	// after: true
}

// A handler that has to wait for somebody else hands the answer on.
func ExampleDelivery_Defer() {
	addr, stop := runNode()
	defer stop()
	ctx := context.Background()
	waiting := make(chan *client.Responder, 1)
	s := attach(addr, func(_ context.Context, d *client.Delivery) { waiting <- d.Defer() }, "alice")
	defer s.Close(ctx)

	go func() { (<-waiting).Reply([]byte("the browser has it")) }()
	reply, err := s.Send(ctx, client.Message{To: "alice", From: "alice"})
	fmt.Printf("%s, %v\n", reply.Payload, err)
	var e *client.Error
	fmt.Println(errors.As(err, &e) && e.Delivered() == client.DeliveredUnknown)
	// Output:
	// the browser has it, <nil>
	// false
}
