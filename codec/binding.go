package codec

// Policy says what a bind does when another session holds the ID (S13).
type Policy uint8

// The policies of version 1.
const (
	PolicyKickOld Policy = 0 // the new session wins; the holder hears kick
	// the holder keeps the ID if its session lives; the new session hears taken
	PolicyRejectNew Policy = 1
)

// IDEpoch is one ID of a bind or unbind frame. Epoch 0 in a bind requests a new epoch; any other
// re-asserts that binding.
type IDEpoch struct {
	ID    []byte // a view into the frame; its length is not checked, because the answer is per ID
	Epoch uint64
}

// Result is the answer for one ID.
type Result struct {
	Code  Code
	Epoch uint64 // of the current binding; 0 if there is none
}

// Bind requests that messages to IDs are delivered to this session.
type Bind struct {
	Seq    uint64
	Policy Policy
	IDs    IDList
}

// DecodeBind reads the body of a bind frame with at most maxIDs IDs into f. It allocates nothing.
// Its error is an *Error.
func DecodeBind(body []byte, maxIDs int, f *Bind) error {
	r, left := open(body, KindBind, 4)
	f.Seq = r.uint("seq", maxUint)
	f.Policy = Policy(r.uint("policy", uint64(PolicyRejectNew)))
	f.IDs = IDList{readElements(&r, elementPair, maxIDs)}
	return r.close(left)
}

// AppendBind appends the whole frame, length prefix included.
func AppendBind(b []byte, seq uint64, policy Policy, ids []IDEpoch) []byte {
	b, start := begin(b, KindBind, 4)
	b = appendUint(b, seq)
	b = appendUint(b, uint64(policy))
	return end(appendIDs(b, ids), start)
}

// Unbind removes bindings of this session.
type Unbind struct {
	Seq uint64
	IDs IDList
}

// DecodeUnbind reads the body of an unbind frame with at most maxIDs IDs into f. It allocates
// nothing. Its error is an *Error.
func DecodeUnbind(body []byte, maxIDs int, f *Unbind) error {
	r, left := open(body, KindUnbind, 3)
	f.Seq = r.uint("seq", maxUint)
	f.IDs = IDList{readElements(&r, elementPair, maxIDs)}
	return r.close(left)
}

// AppendUnbind appends the whole frame, length prefix included.
func AppendUnbind(b []byte, seq uint64, ids []IDEpoch) []byte {
	b, start := begin(b, KindUnbind, 3)
	b = appendUint(b, seq)
	return end(appendIDs(b, ids), start)
}

func appendTexts[T []byte | string](b []byte, ids []T) []byte {
	b = appendArray(b, len(ids))
	for _, id := range ids {
		b = appendStr(b, id)
	}
	return b
}

func appendIDs(b []byte, ids []IDEpoch) []byte {
	b = appendArray(b, len(ids))
	for _, v := range ids {
		b = appendEpoch(appendStr(appendArray(b, 2), v.ID), v.Epoch)
	}
	return b
}

// Lookup asks which IDs are bound.
type Lookup struct {
	Seq uint64
	IDs IDList
}

// DecodeLookup reads the body of a lookup frame with at most maxIDs IDs into f. It allocates
// nothing. Its error is an *Error.
func DecodeLookup(body []byte, maxIDs int, f *Lookup) error {
	r, left := open(body, KindLookup, 3)
	f.Seq = r.uint("seq", maxUint)
	f.IDs = IDList{readElements(&r, elementText, maxIDs)}
	return r.close(left)
}

// AppendLookup appends the whole frame, length prefix included.
func AppendLookup(b []byte, seq uint64, ids [][]byte) []byte {
	b, start := begin(b, KindLookup, 3)
	return end(appendTexts(appendUint(b, seq), ids), start)
}

// Results is the body of bound, unbound, found and watched: one result per ID, in the order asked.
type Results struct {
	Seq     uint64
	All     ResultList
	Reasons ReasonList // why, for some of those that failed
}

// Reason explains to people why a request for an ID failed.
type Reason struct {
	Index uint64 // the place of the ID's result in the list
	Text  []byte // a view; at most MaxReason bytes
}

// DecodeResults reads the body of a bound, unbound, found or watched frame (kind says which) into
// f. It allocates nothing. Its error is an *Error.
func DecodeResults(body []byte, kind Kind, f *Results) error {
	r, left := open(body, kind, 3)
	f.Seq = r.uint("seq", maxUint)
	f.All = ResultList{readElements(&r, elementResult, anyLen)}
	f.Reasons = ReasonList{}
	if left > 0 {
		f.Reasons = peekReasons(r)
	}
	return r.close(left)
}

// peekReasons reads the next value, which the caller then skips. Reasons are for people, so a value
// that is not a list of reasons does not make the frame invalid.
func peekReasons(r reader) ReasonList {
	all := ReasonList{readElements(&r, elementReason, anyLen)}
	if r.fault != nil {
		return ReasonList{}
	}
	return all
}

// AppendResults appends a bound, unbound, found or watched frame, length prefix included.
func AppendResults(b []byte, kind Kind, seq uint64, results []Result) []byte {
	b, start := begin(b, kind, 3)
	return end(appendResults(b, seq, results), start)
}

// AppendReasons is AppendResults with reasons for some of the results. Without any it makes the
// same frame. Texts over MaxReason bytes are cut off.
func AppendReasons(b []byte, kind Kind, seq uint64, results []Result, reasons []Reason) []byte {
	if len(reasons) == 0 {
		return AppendResults(b, kind, seq, results)
	}
	b, start := begin(b, kind, 4)
	b = appendArray(appendResults(b, seq, results), len(reasons))
	for _, v := range reasons {
		b = appendReason(appendUint(appendArray(b, 2), v.Index), v.Text)
	}
	return end(b, start)
}

func appendResults(b []byte, seq uint64, results []Result) []byte {
	b = appendArray(appendUint(b, seq), len(results))
	for _, v := range results {
		b = appendEpoch(appendCode(appendArray(b, 2), v.Code), v.Epoch)
	}
	return b
}

// DecodeKick reads a kick: id, a view, is now bound elsewhere, under epoch.
func DecodeKick(body []byte) (id []byte, epoch uint64, err error) {
	r, left := open(body, KindKick, 3)
	id = r.id("id")
	epoch = r.uint("epoch", maxEpoch)
	return id, epoch, r.close(left)
}

// AppendKick appends a kick frame, length prefix included.
func AppendKick(b []byte, id string, epoch uint64) []byte {
	b, start := begin(b, KindKick, 3)
	return end(appendEpoch(appendStr(b, id), epoch), start)
}
