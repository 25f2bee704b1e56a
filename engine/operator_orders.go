package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"distmsg/engine/internal/directory"
)

// rebalanceArgs are the arguments of an order to move clients.
type rebalanceArgs struct {
	Share       float64 `json:"share"`
	OverSeconds float64 `json:"over_seconds"`
}

// obeyed is the answer to an order.
type obeyed struct {
	Moved int `json:"moved"`
}

// ErrNotBound is the error of Operator.Kick for an ID that nobody holds.
var ErrNotBound = errors.New("engine: the ID is not bound")

// Kick ends the binding of an ID, whichever session holds it, by the registry. The session's client
// hears a kick, as if another session had bound the ID, with an epoch that is greater by one. It
// may bind the ID again. Messages to the ID end with no_route from then on. If nobody holds the ID,
// the error wraps ErrNotBound.
func (o *Operator) Kick(ctx context.Context, id string) error {
	if !o.eng.running.Load() {
		return errNotRunning
	}
	ctx, cancel := inTime(ctx)
	defer cancel()
	b, err := directory.NewInquiry(o.eng.dir).KickOut(ctx, id)
	switch {
	case errors.Is(err, directory.ErrNotBound):
		return ErrNotBound
	case err == nil:
		o.eng.cfg.Logger.Info("an operator has ended a binding", "id", id, "session", b.Session, "epoch", b.Epoch)
	}
	return err
}

// Drain makes a node drain, or this one if node is empty. It returns when the node has asked its
// clients to move. Their time is that of Engine.Drain: at least 5 s, or twice Config.DrainSpread.
// The node runs on, and drains until Undrain.
func (o *Operator) Drain(ctx context.Context, node string) error {
	_, err := o.order(ctx, orderDrain, node, struct{}{})
	return err
}

// Undrain ends the drain of a node, or of this one if node is empty. The node takes clients and
// their sends again, and announces that. Clients that were asked to move may still do so. A node
// whose process waits for the end of a drain is about to stop, and refuses.
func (o *Operator) Undrain(ctx context.Context, node string) error {
	_, err := o.order(ctx, orderUndrain, node, struct{}{})
	return err
}

// Rebalance asks a share (0 to 1) of a node's clients to move to other nodes, spread over a time of
// up to an hour. An empty node is this one. It returns how many it has chosen, at random, when the
// move begins. NodeInfo.Rebalance says how far it is. A later call takes the place of an earlier
// one, and a share of 0 ends it. Clients move as in a drain, so nothing is lost. A client that does
// not move is served as before.
func (o *Operator) Rebalance(ctx context.Context, node string, share float64, over time.Duration) (moved int, err error) {
	return o.order(ctx, orderRebalance, node, rebalanceArgs{Share: share, OverSeconds: over.Seconds()})
}

// order gives one node an order.
func (o *Operator) order(ctx context.Context, verb, node string, args any) (moved int, err error) {
	if node == "" {
		node = o.eng.cfg.NodeID
	}
	all, err := askAll[obeyed](ctx, o.eng, verb, args, node)
	switch {
	case err != nil:
		return 0, err
	case len(all.Missing) > 0:
		return 0, fmt.Errorf("engine: node %q: %s", node, all.Missing[0].Why)
	case len(all.Answers) != 1:
		return 0, fmt.Errorf("engine: node %q: the answer is not valid", node)
	}
	return all.Answers[0].Moved, nil
}

// obey carries out an order.
func (a respondent) obey(ctx context.Context, verb string, args rebalanceArgs) ([]obeyed, error) {
	e := a.eng
	if err := a.ready(); err != nil {
		return nil, err
	}
	if e.serving.Err() != nil {
		return nil, errors.New("the node is stopping")
	}
	switch verb {
	case orderDrain:
		return []obeyed{{}}, e.drain.order(ctx)
	case orderUndrain:
		return []obeyed{{}}, e.drain.undo(ctx)
	}
	over := time.Duration(args.OverSeconds * float64(time.Second))
	n, err := e.rebalance.begin(ctx, args.Share, over)
	return []obeyed{{Moved: n}}, err
}
