package peers

import (
	"context"
	"time"
)

// A starting node first announces that it takes no sessions yet, so that the others link with it.
// It takes clients once it has a link to all of them. For a client that came before, nodes that are
// merely not linked yet would be unreachable.

// JoinTimeout bounds how long a starting node waits for links. A listed node may be dead.
const JoinTimeout = 2 * time.Second

// joinPoll is how often a starting node checks whether it is linked to all others.
const joinPoll = 10 * time.Millisecond

// Join waits until this node is linked to the others, or has waited for JoinTimeout. Then it
// announces that it takes clients. The error is ctx's, or says that another node has this node's
// ID.
func (p *Peers) Join(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, JoinTimeout)
	defer cancel()
	poll := time.NewTicker(joinPoll)
	defer poll.Stop()
	for !p.linkedUp() || len(p.twin) > 0 {
		select {
		case err := <-p.twin:
			return err
		case <-poll.C:
			continue
		case <-wait.Done():
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		missing := append(some(p.Members.withoutLink()), some(p.finder.troubles())...)
		if !p.Members.isKnown() {
			missing = append(missing, "the membership has named no node yet")
		}
		p.log.Warn("accepting clients without a link to all nodes", "missing", missing)
		break
	}
	p.joining.Store(false)
	p.Announcer.Soon()
	return nil
}

func (p *Peers) linkedUp() bool {
	return p.Settled() && len(p.Members.withoutLink()) == 0 && len(p.finder.troubles()) == 0
}

// Settled reports whether the membership has given a list and this node has checked each record
// with its own name.
func (p *Peers) Settled() bool { return p.Members.isKnown() && !p.twins.doubtful() }

// End makes the node end with an error. While it is joining, Join returns the error, before the
// node takes clients.
func (p *Peers) End(err error) {
	if !p.Joining() {
		p.engine.Fail(err)
		return
	}
	select {
	case p.twin <- err:
	default:
	}
}
