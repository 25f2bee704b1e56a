// Package wake lets one goroutine tell another that there is something to do.
package wake

// Nudge leaves a token in ch, a channel of capacity 1. It never blocks: if there is a token
// already, that one is enough. Any goroutine may call it.
func Nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
