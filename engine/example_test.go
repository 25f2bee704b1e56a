package engine_test

import (
	"context"
	"errors"
	"fmt"

	"distmsg/codec"
	"distmsg/engine"
)

// A program that embeds the engine, binds two IDs in its own process, and sends from one to the other.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	e, err := engine.New(engine.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	<-e.Ready()

	s, err := e.OpenInProcess(ctx, engine.InProcessConfig{
		Handler: func(m *engine.Message) { m.Ack([]byte("got " + string(m.Payload))) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Bind(ctx, "1001", "1002"); err != nil {
		fmt.Println(err)
		return
	}
	reply, err := s.Send(ctx, "1001", "1002", []byte("hello"))
	fmt.Println(string(reply), err)

	_, err = s.Send(ctx, "1001", "1003", []byte("hello"))
	var failed *engine.SendError
	if errors.As(err, &failed) {
		fmt.Println(failed.Code, failed.Code.Delivered(), failed.Code.Retryable())
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// got hello <nil>
	// no_route no true
	// <nil>
}

// Hooks decide who may connect, which IDs an identity may bind, and what may be sent.
func ExampleHooks() {
	e, err := engine.New(engine.Config{
		Addr: "none",
		Hooks: engine.Hooks{
			Bind: func(identity, id string) error {
				if identity != "chat" {
					return errors.New("only the chat servers hold users")
				}
				return nil
			},
			Send: func(_ string, m *codec.Send) codec.Code {
				if len(m.Payload) > 1000 {
					return codec.CodeDenied
				}
				return codec.CodeOK
			},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	s, err := e.OpenInProcess(ctx, engine.InProcessConfig{Identity: "game"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Bind(ctx, "1001"))
	stop()
	fmt.Println(<-done)
	// Output:
	// engine: bind "1001": denied
	// <nil>
}
