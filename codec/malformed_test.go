package codec

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
)

// asError checks what every decoder promises of its errors.
func asError(t *testing.T, err error, body []byte) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%x: error %v (%T), want an *Error", body, err, err)
	}
	if e.Fault < FaultBadLength || e.Fault > FaultUnexpectedKind {
		t.Fatalf("%x: %v: the fault is not one of decoding", body, e)
	}
	if e.Offset < 0 || e.Offset > len(body) {
		t.Fatalf("%x: %v: the offset is outside of %d bytes", body, e, len(body))
	}
	if e.Field == "" && e.Offset != 0 && e.Fault != FaultBadLength {
		t.Fatalf("%x: %v: no field is named", body, e)
	}
	if e.Detail == "" || e.Error() == "" {
		t.Fatalf("%x: %v: no detail", body, e)
	}
	return e
}

func TestTruncated(t *testing.T) {
	eachKind(t, func(t *testing.T, l layout) {
		for _, body := range [][]byte{
			bodyOf(example(l.kind)),
			extended(bodyOf(example(l.kind)), len(l.fields)+1, 0x93, 0xc0, 0xa1, 'x', 0x81, 0xa1, 'k', 0xcb, 1, 2, 3, 4, 5, 6, 7, 8),
		} {
			for n := range body {
				_, err := decodeFields(l.kind, body[:n:n])
				e := asError(t, err, body[:n])
				if e.Kind != l.kind {
					t.Fatalf("%x: %v: kind %v", body[:n], e, e.Kind)
				}
				if e.Fault != FaultBadLength && e.Fault != FaultTooMany {
					t.Fatalf("%x: %v", body[:n], e)
				}
				if _, err := PeekKind(body[:n]); err != nil {
					asError(t, err, body[:n])
				} else if n < 2 {
					t.Fatalf("PeekKind reads %d bytes", n)
				}
			}
			if _, err := decodeFields(l.kind, body); err != nil {
				t.Fatal("the whole frame does not decode:", err)
			}
			_, err := decodeFields(l.kind, append(slices.Clone(body), 0))
			if e := asError(t, err, append(body, 0)); e.Fault != FaultBadLength || e.Offset != len(body) {
				t.Fatalf("a byte too many: %v", e)
			}
		}
	})
}

// extended appends one value to a body of n elements, whose array header it replaces.
func extended(body []byte, n int, value ...byte) []byte {
	header := appendArray(nil, n+1)
	return slices.Concat(header, body[1:], value)
}

func TestExtensionsAreSkipped(t *testing.T) {
	deepest := append(bytes.Repeat([]byte{0x91}, MaxDepth-2), 0x90) // in the frame's own array
	values := map[string][]byte{
		"nil":                {0xc0},
		"bool":               {0xc3},
		"negative":           {0xe0},
		"int 64":             {0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"uint 64":            {0xcf, 255, 255, 255, 255, 255, 255, 255, 255},
		"float 32":           {0xca, 0, 0, 0, 0},
		"float 64":           {0xcb, 0, 0, 0, 0, 0, 0, 0, 0},
		"str":                {0xa3, 'a', 'b', 'c'},
		"str 32":             {0xdb, 0, 0, 0, 1, 'a'},
		"bin 16":             {0xc5, 0, 2, 1, 2},
		"ext 8":              {0xc7, 3, 0xff, 1, 2, 3},
		"ext 16, empty":      {0xc8, 0, 0, 7},
		"ext 32":             {0xc9, 0, 0, 0, 1, 7, 9},
		"fixext 1":           {0xd4, 7, 9},
		"fixext 16":          append([]byte{0xd8, 7}, make([]byte, 16)...),
		"empty array":        {0x90},
		"empty map":          {0x80},
		"map, array as key":  {0x81, 0x91, 0xc0, 0xc0},
		"array 32, map 16":   {0xdd, 0, 0, 0, 2, 0xde, 0, 1, 0xa1, 'k', 0x90, 0x01},
		"the deepest":        deepest,
		"a second extension": {0x01},
	}
	eachKind(t, func(t *testing.T, l layout) {
		body := bodyOf(example(l.kind))
		want, err := decodeFields(l.kind, body)
		if err != nil {
			t.Fatal(err)
		}
		n := len(l.fields) + 1
		all := body
		for name, value := range values {
			all = slices.Concat(appendArray(nil, n+1), all[len(appendArray(nil, n)):], value)
			n++
			one := extended(body, len(l.fields)+1, value...)
			for _, b := range [][]byte{one, all} {
				if kind, err := PeekKind(b); kind != l.kind || err != nil {
					t.Errorf("%s: PeekKind: %v, %v", name, kind, err)
				}
				if got, err := decodeFields(l.kind, b); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %v, %v", name, got, err)
				}
			}
		}
		for name, bad := range map[string]struct {
			value []byte
			fault Fault
			at    int // into the value
		}{
			"too deep":      {append([]byte{0x91}, deepest...), FaultTooDeep, MaxDepth - 1},
			"no type":       {[]byte{0xc1}, FaultWrongType, 0},
			"no type, deep": {[]byte{0x92, 0xc0, 0xc1}, FaultWrongType, 2},
			"huge array":    {[]byte{0xdd, 0, 0x98, 0x96, 0x80}, FaultTooMany, 0},
			"huge map":      {[]byte{0x91, 0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0}, FaultTooMany, 1},
			"huge bin":      {[]byte{0xc6, 0x80, 0, 0, 0}, FaultBadLength, 0},
			"huge ext":      {[]byte{0xc9, 0xff, 0xff, 0xff, 0xff, 1}, FaultBadLength, 0},
		} {
			b := extended(body, len(l.fields)+1, bad.value...)
			_, err := decodeFields(l.kind, b)
			e := asError(t, err, b)
			if e.Fault != bad.fault || e.Field != "extension" || e.Offset != len(body)+bad.at {
				t.Errorf("%s: %v, want %v at %d", name, e, bad.fault, len(body)+bad.at)
			}
		}
	})
}

// TestNestedExtensionsAreSkipped appends to the arrays inside frames.
func TestNestedExtensionsAreSkipped(t *testing.T) {
	// deep is as deep as it may be inside depth arrays, tooDeep one deeper.
	deep := func(depth int) []byte { return append(bytes.Repeat([]byte{0x91}, MaxDepth-depth-1), 0x90) }
	tooDeep := func(depth int) []byte { return append([]byte{0x91}, deep(depth)...) }
	limits := slices.Concat([]byte{0x9d}, bytes.Repeat([]byte{7}, 12))
	welcome := slices.Concat([]byte{0x9a, 2, 1, 0, 0xa1, 'n', 3, 0xc4, 16}, make([]byte, 16), []byte{0xc4, 32}, make([]byte, 32), []byte{0})
	for name, c := range map[string]struct {
		kind         Kind
		before       []byte
		depth        int
		after        []byte
		field        string
		wantElements int
	}{
		"bind":    {KindBind, []byte{0x94, 16, 1, 0, 0x91, 0x93, 0xa1, 'a', 5}, 3, nil, "ids", 1},
		"unbind":  {KindUnbind, []byte{0x93, 18, 1, 0x92, 0x93, 0xa1, 'a', 5}, 3, []byte{0x92, 0xa1, 'b', 6}, "ids", 2},
		"bound":   {KindBound, []byte{0x93, 17, 1, 0x91, 0x93, 0, 5}, 3, nil, "results", 1},
		"limits":  {KindWelcome, slices.Concat(welcome, limits), 2, []byte{0x90}, "limits", 12},
		"members": {KindWelcome, slices.Concat(welcome, []byte{0x9c}, limits[1:], []byte{0x91, 0x93, 0xa1, 'n', 0xa1, 'a'}), 3, nil, "members", 1},
		"deliver": {KindDeliverMany, []byte{0x96, 49, 0xa0, 0, 1, 0x91, 0x94, 0xc4, 0, 0xa1, 'a', 5}, 3, []byte{0xc4, 0}, "to", 1},
		"forward": {KindForwardMany, slices.Concat([]byte{0x96, 93, 0xa0, 0, 1, 0x91, 0x95, 0xc4, 0, 0xa1, 'a', 5, 0xc4, 16}, make([]byte, 16)), 3, []byte{0xc4, 0}, "to", 1},
		"return":  {KindReturnMany, slices.Concat([]byte{0x96, 94, 0xa0, 0, 1, 0x91, 0x96, 0xc4, 0, 0xa1, 'a', 5, 0xc4, 16}, make([]byte, 16), []byte{86}), 3, []byte{0xc4, 0}, "to", 1},
		"outcome": {KindOutcomes, []byte{0x92, 51, 0x92, 0x95, 7, 1, 0xa0, 0xc4, 0}, 3, []byte{0x94, 8, 1, 0xa0, 0xc4, 0}, "outcomes", 2},
		"watched": {KindWatched, []byte{0x93, 65, 1, 0x91, 0x93, 0, 5}, 3, nil, "results", 1},
		"changed": {KindChanged, []byte{0x92, 67, 0x91, 0x94, 0xa1, 'a', 0, 5}, 3, nil, "changes", 1},
		"nodes":   {KindMembers, []byte{0x92, 12, 0x91, 0x93, 0xa1, 'n', 0xa1, 'a'}, 3, nil, "members", 1},
	} {
		v, err := decodeFields(c.kind, slices.Concat(c.before, deep(c.depth), c.after))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if i := fieldOf(c.kind, c.field); len(v[i].([]any)) != c.wantElements {
			t.Errorf("%s: %v, want %d elements", name, v[i], c.wantElements)
		}
		b := slices.Concat(c.before, tooDeep(c.depth), c.after)
		_, err = decodeFields(c.kind, b)
		if e := asError(t, err, b); e.Fault != FaultTooDeep || e.Field != c.field {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// fieldOf is the place of a field in the layout of a kind.
func fieldOf(kind Kind, name string) int {
	return slices.IndexFunc(layoutOf(kind).fields, func(f spec) bool { return f.name == name })
}

// TestTupleLimits puts into each place of a tuple, one at a time, what may not stand there, and
// leaves one out.
func TestTupleLimits(t *testing.T) {
	eachKind(t, func(t *testing.T, l layout) {
		for i, f := range l.fields {
			if len(f.elem) < 2 || f.name == "members" { // TestWrongNodesAreSkipped
				continue
			}
			values, err := decodeFields(l.kind, bodyOf(example(l.kind)))
			if err != nil {
				t.Fatal(err)
			}
			good := f.element(func(j int, e spec) any { return e.example(l.kind, j) }).([]any)
			check := func(what string, tuple []any, want Fault) {
				values[i] = []any{good, tuple}
				body := appendUint(appendArray(nil, len(values)+1), uint64(l.kind))
				for _, v := range values {
					body = appendAny(body, v)
				}
				_, err := decodeFields(l.kind, body)
				if e := asError(t, err, body); e.Fault != want || e.Field != f.name {
					t.Errorf("%s: %v, want %v in %s", what, e, want, f.name)
				}
			}
			check("one too few", good[:len(good)-1], FaultBadLength)
			for j, e := range f.elem {
				other := slices.Clone(good)
				other[j] = []any{}
				check(e.name+" is an array", other, FaultWrongType)
				if f.name == "ids" && e.typ == "str" {
					continue // of any length, because the answer is per ID
				}
				for _, beyond := range e.beyond() {
					other[j] = beyond
					check(e.name, other, FaultBadValue)
				}
			}
		}
	})
}

// TestOlderLimits: a node that is older than a limit does not announce it, and that is 0; a newer
// one announces more.
func TestOlderLimits(t *testing.T) {
	for n := range 15 {
		body := []byte{0x9a, 2, 1, 0, 0xa1, 'n', 3, 0xc4, SessionIDLen}
		body = append(append(body, make([]byte, SessionIDLen)...), 0xc4, SecretLen)
		body = append(append(body, make([]byte, SecretLen)...), 0)
		body = appendArray(body, n)
		for i := range n {
			body = append(body, byte(i+1))
		}
		body = append(body, 0x90)
		// of a welcome that was read before
		f := Welcome{Limits: Limits{MaxMulticast: 99, MaxWatched: 99}}
		err := DecodeWelcome(body, &f)
		if n < minLimits {
			if e := asError(t, err, body); e.Fault != FaultBadLength || e.Field != "limits" {
				t.Errorf("%d limits: %v", n, e)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d limits: %v", n, err)
		}
		for i, p := range f.Limits.fields() {
			if want := uint64(i + 1); i < n && *p != want || i >= n && *p != 0 {
				t.Errorf("%d limits: number %d is %d", n, i, *p)
			}
		}
	}
}

// TestTooManyIDs: every frame of a client that lists IDs is bounded by the caller's limit.
func TestTooManyIDs(t *testing.T) {
	for _, kind := range []Kind{KindBind, KindUnbind, KindLookup, KindMulticast, KindDeliverMany, KindNotHereMany, KindWatch, KindUnwatch, KindForwardMany, KindReturnMany, KindClaim} {
		body := bodyOf(example(kind)) // has two
		if _, err := decodeLimited(kind, body, 2); err != nil {
			t.Errorf("%v, the limit itself: %v", kind, err)
		}
		_, err := decodeLimited(kind, body, 1)
		if e := asError(t, err, body); e.Fault != FaultTooMany || e.Field != "ids" && e.Field != "to" {
			t.Errorf("%v: %v", kind, e)
		}
	}
}

// TestFieldLimits puts into each field, one at a time, what is just beyond its limit.
func TestFieldLimits(t *testing.T) {
	eachKind(t, func(t *testing.T, l layout) {
		good, err := decodeFields(l.kind, bodyOf(example(l.kind)))
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range l.fields {
			for _, beyond := range f.beyond() {
				values := slices.Clone(good)
				values[i] = beyond
				body := appendUint(appendArray(nil, len(values)+1), uint64(l.kind))
				for _, v := range values {
					body = appendAny(body, v)
				}
				_, err := decodeFields(l.kind, body)
				if e := asError(t, err, body); e.Fault != FaultBadValue || e.Field != f.name {
					t.Errorf("%s: %v", f.name, e)
				}
			}
		}
	})
}

// beyond are values of the right type that are too large, or too small. Fields that may fill the
// frame have none.
func (f spec) beyond() (v []any) {
	switch {
	case f.oneOf != nil:
		v = append(v, f.max+1, f.min-1, f.min+1)
	case f.typ == "int" && f.max < maxUint:
		v = append(v, f.max+1, uint64(maxUint))
	case f.typ == "str":
		v = append(v, string(make([]byte, f.max+1)))
		if f.min > 0 {
			v = append(v, string(make([]byte, f.min-1)))
		}
	case f.typ == "bin" && f.max <= MaxToken:
		v = append(v, make([]byte, f.max+1))
		if f.min > 0 {
			v = append(v, make([]byte, f.min-1))
		}
	}
	return v
}

// appendAny encodes a value without asking whether it is allowed.
func appendAny(b []byte, v any) []byte {
	switch v := v.(type) {
	case uint64:
		return appendUint(b, v)
	case string:
		return appendStr(b, v)
	case []byte:
		return appendBin(b, v)
	}
	b = appendArray(b, len(v.([]any)))
	for _, e := range v.([]any) {
		b = appendAny(b, e)
	}
	return b
}

// TestNodeListsAreBounded: a frame full of the shortest entries must not become many times its size
// in memory.
func TestNodeListsAreBounded(t *testing.T) {
	const size = 1 << 20
	many := func(head, elem string) []byte {
		n := (size - len(head) - 5) / len(elem)
		b := append([]byte(head), 0xdd, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		return append(b, bytes.Repeat([]byte(elem), n)...)
	}
	for kind, body := range map[Kind][]byte{
		KindMembers: many("\x92\x0c", "\x92\xa0\xa0"),
		KindDrain:   many("\x94\x06\x00\x00", "\xa0"),
	} {
		var err error
		n := allocated(func() { _, err = decodeFields(kind, body) })
		if e := asError(t, err, body); e.Fault != FaultTooMany || n > 64<<10 {
			t.Errorf("%v: %v, %d bytes allocated for %d", kind, e, n, len(body))
		}
	}
	all := make([]Member, MaxMembers+1)
	for i := range all {
		all[i] = Member{Node: string(make([]byte, MaxID)), Addr: string(make([]byte, MaxID))}
	}
	welcome := AppendWelcome(nil, &Welcome{Session: make([]byte, SessionIDLen), Secret: make([]byte, SecretLen), Members: all})
	var f Welcome
	if err := DecodeWelcome(bodyOf(welcome), &f); err != nil || len(f.Members) != MaxMembers || len(welcome) > size {
		t.Errorf("%d nodes in %d bytes (%v), want the first %d in at most %d", len(f.Members), len(welcome), err, MaxMembers, size)
	}
}

func TestSplit(t *testing.T) {
	frame := AppendPing(nil, 300)
	buf := append(slices.Clone(frame), frame[:3]...)
	body, n, err := Split(buf, 5)
	if err != nil || n != len(frame) || !bytes.Equal(body, frame[PrefixLen:]) {
		t.Fatalf("%x, %d, %v", body, n, err)
	}
	if cap(body) != len(body) {
		t.Error("an append to the body would write into the next frame")
	}
	for n := range frame {
		if body, taken, err := Split(frame[:n:n], 100); body != nil || taken != 0 || err != nil {
			t.Errorf("%d bytes: %x, %d, %v", n, body, taken, err)
		}
		if missing := Missing(frame[:n:n]); n < PrefixLen && missing != PrefixLen-n || n >= PrefixLen && missing != len(frame)-n {
			t.Errorf("%d bytes: %d missing", n, missing)
		}
	}
	for _, c := range []struct {
		prefix []byte
		limit  int
		fault  Fault
	}{
		{[]byte{0, 0, 0, 0}, 100, FaultZeroLength},
		{[]byte{0, 0, 0, 101}, 100, FaultFrameTooLarge},
		{[]byte{0, 0, 16, 1}, MaxHelloFrame, FaultFrameTooLarge},
		{[]byte{0x80, 0, 0, 0}, math.MaxInt32, FaultFrameTooLarge},
		{[]byte{0xff, 0xff, 0xff, 0xff}, 1 << 20, FaultFrameTooLarge},
	} {
		body, n, err := Split(c.prefix, c.limit)
		var e *Error
		if !errors.As(err, &e) || e.Fault != c.fault || e.Field != "length" || body != nil || n != 0 {
			t.Errorf("%x: %x, %d, %v, want %v", c.prefix, body, n, err, c.fault)
		}
	}
	if _, _, err := Split([]byte{0, 0, 16, 0}, MaxHelloFrame); err != nil {
		t.Error("the limit itself:", err)
	}
}
