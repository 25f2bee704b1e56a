// Package wake lets one goroutine notify another that there is something to do.
package wake

// Nudge puts a token into ch, a channel of capacity 1. It never blocks, because one token is
// enough. Any goroutine may call it.
func Nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
