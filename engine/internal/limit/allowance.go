package limit

// Allowance is how many bytes may wait for one connection. A part of them is free. What is more,
// the connection reserves of a number of bytes that it shares with others, in large steps, so that
// most messages cost one comparison and no atomic operation. One goroutine owns it.
type Allowance struct {
	allowed  int // bytes that may wait until Reserve is called
	reserved int // of those that are shared
}

const (
	// FreeBytes is how many bytes may wait for a connection whatever others have reserved.
	FreeBytes = 64 << 10
	// stepBytes is how many bytes a connection reserves at once.
	stepBytes = 64 << 10
	// aheadBytes is how many more bytes may wait before a connection without a limit notices that
	// there is one now.
	aheadBytes = 1 << 20
)

// Allows reports whether n bytes may wait. If not, Reserve may help.
func (a *Allowance) Allows(n int) bool { return n <= a.allowed }

// Reserve reserves what is needed so that n bytes may wait. common is how many bytes all that share
// may reserve, or 0 for any number. It returns false, and reserves nothing, if too few are left.
func (a *Allowance) Reserve(n, common int, shared *Count) bool {
	if common <= 0 {
		a.Close(shared)
		a.allowed = max(n, FreeBytes) + aheadBytes
		return true
	}
	if want := steps(n) - a.reserved; want > 0 {
		got := shared.take(common, want)
		if a.reserved+got < n-FreeBytes { // it may have enough if the last step is smaller
			shared.giveBack(got)
			got = 0
		}
		a.reserved += got
	}
	a.keep(common)
	return a.Allows(n)
}

// Trims reports whether Trim has something to do when nothing waits any more.
func (a *Allowance) Trims() bool { return a.allowed > FreeBytes }

// Trim gives back what is not needed while n bytes wait.
func (a *Allowance) Trim(n, common int, shared *Count) {
	if over := a.reserved - steps(n); over > 0 {
		shared.giveBack(over)
		a.reserved -= over
	}
	a.keep(common)
}

// keep allows what is reserved to be used, unless the limit is lower by now.
func (a *Allowance) keep(common int) { a.allowed = FreeBytes + min(a.reserved, max(0, common)) }

// Renew makes the connection reserve anew before the next message, because the limit has changed.
func (a *Allowance) Renew() { a.allowed = 0 }

// Close gives back all that is reserved.
func (a *Allowance) Close(shared *Count) {
	if a.reserved > 0 {
		shared.giveBack(a.reserved)
	}
	a.reserved, a.allowed = 0, 0
}

// steps returns how many bytes to reserve if n bytes wait.
func steps(n int) int { return max(0, n-FreeBytes+stepBytes-1) / stepBytes * stepBytes }
