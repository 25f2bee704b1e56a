package codec

// Policy says what a bind does when another session holds the ID (S13).
type Policy uint8

// The policies of version 1.
const (
	PolicyKickOld   Policy = 0 // the newcomer wins; the incumbent hears kick
	PolicyRejectNew Policy = 1 // the incumbent stays if its session lives; the newcomer hears taken
)

// tupleDepth is the number of arrays around the elements of a pair or a longer tuple: the frame's, the list's and its own.
const tupleDepth = 3

// listDepth is the number of arrays around an element of a list: the frame's and the list's.
const listDepth = 2

// IDEpoch is one ID of a bind or unbind frame. Epoch 0 in a bind asks for a new epoch; any other re-asserts that binding.
type IDEpoch struct {
	ID    []byte // a view into the frame; its length is not checked, because the answer is per ID
	Epoch uint64
}

// Result is the answer for one ID.
type Result struct {
	Code  Code
	Epoch uint64 // of the binding that stands; 0 when there is none
}

// IDList is a checked array of IDs inside a frame. Next reads it element by element without allocating.
type IDList struct {
	r    reader
	n    int
	elem element
}

// element says what an IDList is made of.
type element uint8

const (
	elementPair element = iota // [id, epoch], the ID of any length
	elementText                // an ID of any length alone, because the answer is per ID
	elementID                  // an ID of 1 to MaxID bytes alone: the to of a multicast
)

// field is what the protocol document calls a list of them.
func (e element) field() string {
	if e == elementID {
		return "to"
	}
	return "ids"
}

// Len returns the number of elements that Next has not returned yet.
func (l *IDList) Len() int { return l.n }

// Next returns the next element; ok is false after the last. The ID is a view and lives as long as the frame's bytes.
func (l *IDList) Next() (v IDEpoch, ok bool) {
	if l.n == 0 {
		return v, false
	}
	l.n--
	return l.read(), true
}

func (l *IDList) read() (v IDEpoch) {
	switch l.elem {
	case elementText:
		v.ID = l.r.str("ids", anyLen)
		return v
	case elementID:
		v.ID = l.r.id(l.elem.field())
		return v
	}
	rest := l.r.pair("ids")
	v.ID = l.r.str("ids", anyLen)
	v.Epoch = l.r.uint("ids", maxEpoch)
	l.r.skipRest(rest, "ids", tupleDepth)
	return v
}

// readIDs checks every element and leaves the cursor behind them; the list starts again before them.
func readIDs(r *reader, limit int, elem element) IDList {
	n := r.list(elem.field(), limit)
	first := IDList{r: *r, n: n, elem: elem}
	walk := first
	for i := 0; i < n && walk.r.fault == nil; i++ {
		walk.read()
	}
	*r = walk.r
	return first
}

// ResultList is a checked array of results inside a frame.
type ResultList struct {
	r reader
	n int
}

// Len returns the number of elements that Next has not returned yet.
func (l *ResultList) Len() int { return l.n }

// Next returns the next element; ok is false after the last.
func (l *ResultList) Next() (v Result, ok bool) {
	if l.n == 0 {
		return v, false
	}
	l.n--
	return l.read(), true
}

func (l *ResultList) read() (v Result) {
	rest := l.r.pair("results")
	v.Code = Code(l.r.uint("results", maxCode))
	v.Epoch = l.r.uint("results", maxEpoch)
	l.r.skipRest(rest, "results", tupleDepth)
	return v
}

// Bind asks for IDs to be delivered to this session.
type Bind struct {
	Seq    uint64
	Policy Policy
	IDs    IDList
}

// DecodeBind reads the body of a bind frame with at most maxIDs IDs into f. It allocates nothing. Its error is an *Error.
func DecodeBind(body []byte, maxIDs int, f *Bind) error {
	r, left := open(body, KindBind, 4)
	f.Seq = r.uint("seq", maxUint)
	f.Policy = Policy(r.uint("policy", uint64(PolicyRejectNew)))
	f.IDs = readIDs(&r, maxIDs, elementPair)
	return r.close(left)
}

// AppendBind appends the whole frame, length prefix included.
func AppendBind(b []byte, seq uint64, policy Policy, ids []IDEpoch) []byte {
	b, start := begin(b, KindBind, 4)
	b = appendUint(b, seq)
	b = appendUint(b, uint64(policy))
	return end(appendIDs(b, ids), start)
}

// Unbind gives IDs back.
type Unbind struct {
	Seq uint64
	IDs IDList
}

// DecodeUnbind reads the body of an unbind frame with at most maxIDs IDs into f. It allocates nothing. Its error is an *Error.
func DecodeUnbind(body []byte, maxIDs int, f *Unbind) error {
	r, left := open(body, KindUnbind, 3)
	f.Seq = r.uint("seq", maxUint)
	f.IDs = readIDs(&r, maxIDs, elementPair)
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

// DecodeLookup reads the body of a lookup frame with at most maxIDs IDs into f. It allocates nothing. Its error is an *Error.
func DecodeLookup(body []byte, maxIDs int, f *Lookup) error {
	r, left := open(body, KindLookup, 3)
	f.Seq = r.uint("seq", maxUint)
	f.IDs = readIDs(&r, maxIDs, elementText)
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

// Reason says for people why what was asked for an ID failed.
type Reason struct {
	Index uint64 // the place of the ID's result in the list
	Text  []byte // a view; at most MaxReason bytes
}

// ReasonList is a checked array of reasons inside a frame.
type ReasonList struct {
	r reader
	n int
}

// Next returns the next element; ok is false after the last. The text is a view and lives as long
// as the frame's bytes.
func (l *ReasonList) Next() (v Reason, ok bool) {
	if l.n == 0 {
		return v, false
	}
	l.n--
	return l.read(), true
}

func (l *ReasonList) read() (v Reason) {
	rest := l.r.pair("reasons")
	v.Index = l.r.uint("reasons", maxUint)
	v.Text = l.r.str("reasons", MaxReason)
	l.r.skipRest(rest, "reasons", tupleDepth)
	return v
}

// DecodeResults reads the body of a bound, unbound, found or watched frame (kind says which) into f. It allocates nothing. Its error is an *Error.
func DecodeResults(body []byte, kind Kind, f *Results) error {
	r, left := open(body, kind, 3)
	f.Seq = r.uint("seq", maxUint)
	n := r.array("results")
	f.All = ResultList{r: r, n: n}
	walk := f.All
	for i := 0; i < n && walk.r.fault == nil; i++ {
		walk.read()
	}
	r = walk.r
	f.Reasons = ReasonList{}
	if left > 0 {
		f.Reasons = peekReasons(r)
	}
	return r.close(left)
}

// peekReasons reads the value that comes next, which is skipped afterwards. They are for people:
// what is no list of reasons is no reason to refuse the frame.
func peekReasons(r reader) ReasonList {
	n := r.array("reasons")
	all := ReasonList{r: r, n: n}
	walk := all
	for i := 0; i < n && walk.r.fault == nil; i++ {
		walk.read()
	}
	if walk.r.fault != nil {
		return ReasonList{}
	}
	return all
}

// AppendResults appends a bound, unbound, found or watched frame, length prefix included.
func AppendResults(b []byte, kind Kind, seq uint64, results []Result) []byte {
	b, start := begin(b, kind, 3)
	return end(appendResults(b, seq, results), start)
}

// AppendReasons is AppendResults with reasons for some of the results. Without any it makes the same
// frame. Texts over MaxReason bytes are cut off.
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

// DecodeKick reads a kick: id, a view, is bound elsewhere now, under epoch.
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
