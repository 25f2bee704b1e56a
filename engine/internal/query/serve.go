package query

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// HeardQuery takes a question that has come over a link. It may be called on a loop: another
// goroutine answers. If the node answers too many questions already, refusal is the frame to send.
func (d *Desk) HeardQuery(link routing.Handle, f *codec.Query) (refusal []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.all >= maxServed || d.served[link] >= maxServedOf {
		return codec.AppendQueryPart(nil, &codec.QueryPart{Number: f.Number, Flags: codec.QueryLast, Why: []byte(whyBusy)})
	}
	d.all++
	d.served[link]++
	number, within := f.Number, time.Duration(min(f.Within, uint64(longestAsk.Milliseconds())))*time.Millisecond
	q := Question{Verb: string(f.Verb), Args: bytes.Clone(f.Args)}
	d.running.Go(func() {
		defer d.servedOne(link)
		ctx, cancel := context.WithTimeout(d.ctx, within)
		defer cancel()
		d.serve(ctx, link, number, q)
	})
	return nil
}

func (d *Desk) servedOne(link routing.Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.served[link]--; d.served[link] == 0 {
		delete(d.served, link)
	}
}

// serve answers a question over the link that it came over. If the link has closed, nobody waits.
func (d *Desk) serve(ctx context.Context, link routing.Handle, number uint64, q Question) {
	a := &answer{desk: d, ctx: ctx, link: link, number: number}
	why := ""
	if err := d.node.Answer(ctx, q, a.add); err != nil {
		why = reason(ctx, err)
	}
	// The other node may have given up by now, but it hears why there is no answer.
	a.ctx = d.ctx
	_ = a.send(codec.QueryLast, why)
}

// answer is an answer on its way to another node. Its goroutine owns it.
type answer struct {
	desk   *Desk
	ctx    context.Context
	link   routing.Handle
	number uint64
	sent   int          // bytes
	items  bytes.Buffer // what was not sent yet
}

// add adds an item, and sends what fills a part.
func (a *answer) add(item any) error {
	if err := appendItem(&a.items, item); err != nil {
		return err
	}
	if a.sent+a.items.Len() > maxAnswer {
		a.items.Reset()
		return errLong
	}
	for a.items.Len() > partSize {
		if err := a.send(0, ""); err != nil {
			return err
		}
	}
	return nil
}

// send sends a part. The last one has all that is left, which add has kept short.
func (a *answer) send(flags uint8, why string) error {
	part := a.items.Next(partSize)
	a.sent += len(part)
	f := codec.QueryPart{Number: a.number, Flags: flags, Why: []byte(why), Items: part}
	return a.desk.links.Send(a.ctx, a.link, codec.AppendQueryPart(nil, &f))
}

// appendItem appends an item as a line.
func appendItem(b *bytes.Buffer, item any) error {
	line, err := json.Marshal(item)
	if err != nil {
		return err
	}
	if b.Len()+len(line) >= maxAnswer {
		return errLong
	}
	b.Write(line) // without a line feed, which JSON escapes
	b.WriteByte('\n')
	return nil
}

// split returns the items of an answer.
func split(answer []byte) (items []json.RawMessage, why string) {
	for line := range bytes.Lines(answer) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if !json.Valid(line) {
			return nil, "the answer is not valid"
		}
		items = append(items, line)
	}
	return items, ""
}
