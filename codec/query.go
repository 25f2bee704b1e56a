package codec

import "math"

// QueryLast marks the last part of an answer to a query.
const QueryLast = 1 << 0

// Query is a question of one node to another, on behalf of an operator.
type Query struct {
	Number uint64 // of the question, chosen by the node that asks
	Within uint64 // milliseconds until the node that asks gives up
	Verb   []byte // what it asks for; 1 to MaxID bytes
	Args   []byte // arguments of the verb
}

// DecodeQuery reads the body of a query frame into f. The byte fields are views. Its error is an
// *Error.
func DecodeQuery(body []byte, f *Query) error {
	r, left := open(body, KindQuery, 5)
	f.Number = r.uint("number", maxUint)
	f.Within = r.uint("within", maxUint)
	f.Verb = r.id("verb")
	f.Args = r.bin("args", anyLen)
	return r.close(left)
}

// AppendQuery appends the whole frame with its length prefix.
func AppendQuery(b []byte, f *Query) []byte {
	b, start := begin(b, KindQuery, 5)
	b = appendStr(appendUint(appendUint(b, f.Number), f.Within), f.Verb)
	return end(appendBin(b, f.Args), start)
}

// QueryPart is a part of the answer to a query.
type QueryPart struct {
	Number uint64 // of the question
	Flags  uint8  // QueryLast
	Why    []byte // in the last part: why there is no answer; empty if there is one
	Items  []byte
}

// DecodeQueryPart reads the body of a query_part frame into f. The byte fields are views. Its error
// is an *Error.
func DecodeQueryPart(body []byte, f *QueryPart) error {
	r, left := open(body, KindQueryPart, 5)
	f.Number = r.uint("number", maxUint)
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.Why = r.str("why", MaxReason)
	f.Items = r.bin("items", anyLen)
	return r.close(left)
}

// AppendQueryPart appends the whole frame with its length prefix. It cuts off Why after MaxReason
// bytes.
func AppendQueryPart(b []byte, f *QueryPart) []byte {
	b, start := begin(b, KindQueryPart, 5)
	b = appendReason(appendUint(appendUint(b, f.Number), uint64(f.Flags)), f.Why)
	return end(appendBin(b, f.Items), start)
}
