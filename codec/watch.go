package codec

// Watch asks to be told when IDs come and go.
type Watch struct {
	Seq uint64
	IDs IDList
}

// DecodeWatch reads the body of a watch frame with at most maxIDs IDs into f. It allocates nothing.
// Its error is an *Error.
func DecodeWatch(body []byte, maxIDs int, f *Watch) error {
	r, left := open(body, KindWatch, 3)
	f.Seq = r.uint("seq", maxUint)
	f.IDs = IDList{readElements(&r, elementText, maxIDs)}
	return r.close(left)
}

// AppendWatch appends the whole frame, length prefix included.
func AppendWatch(b []byte, seq uint64, ids [][]byte) []byte {
	b, start := begin(b, KindWatch, 3)
	return end(appendTexts(appendUint(b, seq), ids), start)
}

// DecodeUnwatch reads an unwatch frame with at most maxIDs IDs: the client wants to hear no more of
// them. Its error is an *Error.
func DecodeUnwatch(body []byte, maxIDs int) (IDList, error) {
	r, left := open(body, KindUnwatch, 2)
	ids := IDList{readElements(&r, elementText, maxIDs)}
	return ids, r.close(left)
}

// AppendUnwatch appends the whole frame, length prefix included.
func AppendUnwatch(b []byte, ids [][]byte) []byte {
	b, start := begin(b, KindUnwatch, 2)
	return end(appendTexts(b, ids), start)
}

// Change is what became of a watched ID.
type Change struct {
	ID []byte // a view into the frame
	// CodeOK: bound, under Epoch. CodeNoRoute: bound no more, Epoch is that of the binding that was
	Code  Code
	Epoch uint64
}

// DecodeChanged reads the body of a changed frame. It allocates nothing. Its error is an *Error.
func DecodeChanged(body []byte) (ChangeList, error) {
	r, left := open(body, KindChanged, 2)
	all := ChangeList{readElements(&r, elementChange, anyLen)}
	return all, r.close(left)
}

// AppendChanged appends a changed frame, length prefix included.
func AppendChanged(b []byte, all []Change) []byte {
	b, start := begin(b, KindChanged, 2)
	b = appendArray(b, len(all))
	for _, v := range all {
		b = appendEpoch(appendCode(appendStr(appendArray(b, 3), v.ID), v.Code), v.Epoch)
	}
	return end(b, start)
}
