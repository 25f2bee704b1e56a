package codec

import "encoding/hex"

// A message may carry the trace that it belongs to: the trace context of W3C, as bytes. It stands
// behind the payload, as an element of its own, and frames without a trace do not have the element.
// Whoever does not know it skips it, as all elements beyond the fields of a frame.

// TraceLen is the length of a trace in bytes: version 1, trace ID 16, parent ID 8, flags 1.
const TraceLen = 26

// traceText is the length of a trace as text: the same in hex, with three hyphens.
const traceText = 2*TraceLen + 3

// ParseTrace writes the bytes of a W3C traceparent to trace. It returns false if text is none: then
// there is nothing to pass on. It allocates nothing.
func ParseTrace(trace *[TraceLen]byte, text string) bool {
	// A later version may have more behind a further hyphen.
	if len(text) < traceText || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return false
	}
	whole := len(text) == traceText
	if !whole && (text[:2] == "00" || text[traceText] != '-') {
		return false
	}
	return parseHex(trace[:1], text[:2]) && trace[0] != 0xff &&
		parseHex(trace[1:17], text[3:35]) && [16]byte(trace[1:17]) != [16]byte{} &&
		parseHex(trace[17:25], text[36:52]) && [8]byte(trace[17:25]) != [8]byte{} &&
		parseHex(trace[25:], text[53:55])
}

// parseHex decodes text, which has two digits for each byte of b, in lower case.
func parseHex(b []byte, text string) bool {
	for i := range b {
		high, low := hexDigit(text[2*i]), hexDigit(text[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		b[i] = high<<4 | low
	}
	return true
}

// hexDigit returns the value of a digit, or more than 15 if it is none.
func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// FormatTrace returns a trace as a W3C traceparent, or "" if it has another length.
func FormatTrace(trace []byte) string {
	if len(trace) != TraceLen {
		return ""
	}
	b := make([]byte, 0, traceText)
	b = append(hex.AppendEncode(b, trace[:1]), '-')
	b = append(hex.AppendEncode(b, trace[1:17]), '-')
	b = append(hex.AppendEncode(b, trace[17:25]), '-')
	return string(hex.AppendEncode(b, trace[25:]))
}

// traceFields returns how many elements a trace adds to a frame.
func traceFields(trace []byte) int {
	if len(trace) == TraceLen {
		return 1
	}
	return 0
}

// appendTrace appends a trace, if there is one.
func appendTrace(b, trace []byte) []byte {
	if len(trace) == TraceLen {
		b = append(append(b, 0xc4, TraceLen), trace...)
	}
	return b
}

// traceSize bounds what appendTrace appends.
func traceSize(trace []byte) int { return traceFields(trace) * (2 + TraceLen) }

// trace reads the trace of a message, if the next of the left elements beyond the fields is one: a
// bin of TraceLen bytes. It returns how many elements are left then. Anything else is an extension
// that this version does not know.
func (r *reader) trace(left int) (trace []byte, rest int) {
	if left <= 0 || r.off >= len(r.b) || r.b[r.off] < 0xc4 || r.b[r.off] > 0xc6 {
		return nil, left
	}
	if trace = r.bin("extension", anyLen); len(trace) != TraceLen {
		trace = nil
	}
	return trace, left - 1
}
