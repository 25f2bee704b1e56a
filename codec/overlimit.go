package codec

import (
	"strconv"
	"strings"
)

// The reason of an overflow that is due to a limit of the client names the limit, and says when to
// come back: "limit NAME: try again in N ms". Without a time, it is "limit NAME". A reason that is
// not of this form names no limit.
const (
	limitBefore = "limit "
	limitWait   = ": try again in "
	limitAfter  = " ms"
)

// AppendLimitReason appends the reason that names a limit and a wait in milliseconds. 0 means that
// time alone does not help.
func AppendLimitReason(b []byte, name string, wait uint64) []byte {
	b = append(append(b, limitBefore...), name...)
	if wait == 0 {
		return b
	}
	return append(strconv.AppendUint(append(b, limitWait...), wait, 10), limitAfter...)
}

// ParseLimitReason reads the limit and the wait in milliseconds from a reason. It returns "" as the
// name if the reason names no limit.
func ParseLimitReason(reason string) (name string, wait uint64) {
	rest, ok := strings.CutPrefix(reason, limitBefore)
	if !ok {
		return "", 0
	}
	name, after, timed := strings.Cut(rest, limitWait)
	if strings.ContainsAny(name, " :") {
		return "", 0
	}
	if !timed {
		return name, 0
	}
	digits, ok := strings.CutSuffix(after, limitAfter)
	wait, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return "", 0
	}
	return name, wait
}
