package codec

// tupleDepth is the number of arrays around the elements of a tuple: the array of the frame, the
// array of the list, and the tuple itself.
const tupleDepth = 3

// listDepth is the number of arrays around an element of a list: the array of the frame and the
// array of the list.
const listDepth = 2

// elements is the common part of IDList and the other lists: a checked array inside a frame. Their
// Next methods read the array element by element and do not allocate.
type elements struct {
	r    reader
	n    int
	elem element
}

// element says what a list is made of.
type element uint8

const (
	elementPair    element = iota // [id, epoch], with an ID of any length
	elementText                   // an ID of any length alone, because the answer is per ID
	elementID                     // an ID of 1 to MaxID bytes alone: the to of a multicast
	elementResult                 // [code, epoch]
	elementReason                 // [index, text]
	elementChange                 // [id, code, epoch]
	elementOutcome                // [seq, code, reason, reply]
	// [token, id, epoch], and more where the frame is one of those between nodes
	elementRecipient
)

// field returns the name that the protocol document gives to a list of such elements.
func (e element) field() string {
	switch e {
	case elementPair, elementText:
		return "ids"
	case elementResult:
		return "results"
	case elementReason:
		return "reasons"
	case elementChange:
		return "changes"
	case elementOutcome:
		return "outcomes"
	}
	return "to"
}

// readElements reads an array of at most limit elements and checks each of them. Afterwards the
// cursor is behind the array. The returned list starts at the first element.
func readElements(r *reader, elem element, limit int) elements {
	n := r.list(elem.field(), limit)
	l := elements{r: *r, n: n, elem: elem}
	r.check(n, elem)
	return l
}

// check reads n elements. Each kind of element has its own loop, so an element costs one call and
// no switch.
func (r *reader) check(n int, e element) {
	switch e {
	case elementResult:
		for ; n > 0 && r.fault == nil; n-- {
			r.result()
		}
	case elementReason:
		for ; n > 0 && r.fault == nil; n-- {
			r.reason()
		}
	case elementChange:
		for ; n > 0 && r.fault == nil; n-- {
			r.change()
		}
	case elementOutcome:
		for ; n > 0 && r.fault == nil; n-- {
			r.outcome()
		}
	case elementRecipient:
		for ; n > 0 && r.fault == nil; n-- {
			r.recipient()
		}
	default:
		for ; n > 0 && r.fault == nil; n-- {
			r.idEpoch(e)
		}
	}
}

// Len returns the number of elements that Next has not returned yet.
func (l *elements) Len() int { return l.n }

// more counts one more element as returned. It returns false after the last one.
func (l *elements) more() bool {
	if l.n == 0 {
		return false
	}
	l.n--
	return true
}

// IDList is a checked array of IDs inside a frame. Next reads it element by element without
// allocating.
type IDList struct{ elements }

// Next returns the next element. ok is false after the last. The ID is a view and lives as long as
// the frame's bytes.
func (l *IDList) Next() (v IDEpoch, ok bool) {
	if !l.more() {
		return v, false
	}
	return l.r.idEpoch(l.elem), true
}

func (r *reader) idEpoch(e element) (v IDEpoch) {
	switch e {
	case elementText:
		v.ID = r.str("ids", anyLen)
		return v
	case elementID:
		v.ID = r.id("to")
		return v
	}
	rest := r.pair("ids")
	v.ID = r.str("ids", anyLen)
	v.Epoch = r.uint("ids", maxEpoch)
	r.skipRest(rest, "ids", tupleDepth)
	return v
}

// ResultList is a checked array of results inside a frame.
type ResultList struct{ elements }

// Next returns the next element. ok is false after the last.
func (l *ResultList) Next() (v Result, ok bool) {
	if !l.more() {
		return v, false
	}
	return l.r.result(), true
}

func (r *reader) result() (v Result) {
	rest := r.pair("results")
	v.Code = Code(r.uint("results", maxCode))
	v.Epoch = r.uint("results", maxEpoch)
	r.skipRest(rest, "results", tupleDepth)
	return v
}

// ReasonList is a checked array of reasons inside a frame.
type ReasonList struct{ elements }

// Next returns the next element. ok is false after the last. The text is a view and lives as long
// as the frame's bytes.
func (l *ReasonList) Next() (v Reason, ok bool) {
	if !l.more() {
		return v, false
	}
	return l.r.reason(), true
}

func (r *reader) reason() (v Reason) {
	rest := r.pair("reasons")
	v.Index = r.uint("reasons", maxUint)
	v.Text = r.str("reasons", MaxReason)
	r.skipRest(rest, "reasons", tupleDepth)
	return v
}

// ChangeList is a checked array of changes inside a changed frame.
type ChangeList struct{ elements }

// Next returns the next element. ok is false after the last. The ID is a view.
func (l *ChangeList) Next() (v Change, ok bool) {
	if !l.more() {
		return v, false
	}
	return l.r.change(), true
}

func (r *reader) change() (v Change) {
	rest := r.tuple("changes", 3)
	v.ID = r.id("changes")
	v.Code = Code(r.uint("changes", maxCode))
	v.Epoch = r.uint("changes", maxEpoch)
	r.skipRest(rest, "changes", tupleDepth)
	return v
}

// OutcomeList is a checked array of outcomes inside an outcomes frame.
type OutcomeList struct{ elements }

// Next returns the next element. ok is false after the last. Its byte fields are views.
func (l *OutcomeList) Next() (v Outcome, ok bool) {
	if !l.more() {
		return v, false
	}
	return l.r.outcome(), true
}

func (r *reader) outcome() (v Outcome) {
	rest := r.tuple("outcomes", 4)
	v.Seq = r.uint("outcomes", maxUint)
	v.Code = Code(r.uint("outcomes", maxCode))
	v.Reason = r.str("outcomes", MaxReason)
	v.Reply = r.bin("outcomes", anyLen)
	r.skipRest(rest, "outcomes", tupleDepth)
	return v
}

// RecipientList is a checked array of recipients inside a frame. Next reads it element by element
// without allocating.
type RecipientList struct{ elements }

// Next returns the next element. ok is false after the last. Its fields are views and live as long
// as the frame's bytes.
func (l *RecipientList) Next() (v Recipient, ok bool) {
	if !l.more() {
		return v, false
	}
	return l.r.recipient(), true
}

func (r *reader) recipient() (v Recipient) {
	fields := recipientFields(r.kind)
	rest := r.tuple("to", fields)
	v.Token = r.bin("to", MaxToken)
	v.To = r.id("to")
	v.Epoch = r.uint("to", maxEpoch)
	if fields > 3 {
		v.Session = r.fixedBin("to", SessionIDLen, false)
	}
	if fields > 4 {
		at := r.off
		v.Why = Kind(r.uint("to", maxKind))
		if v.Why != KindNotMine && v.Why != KindNotAttached && r.fault == nil {
			r.failAt(at, FaultBadValue, "to", "a message is never returned for "+v.Why.String())
		}
	}
	r.skipRest(rest, "to", tupleDepth)
	return v
}
