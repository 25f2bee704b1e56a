package codec

import (
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The protocol documents must not drift from the codec: their tables are read and compared here,
// and their examples are written here, with go test ./codec -run Document -update.

const (
	documentFile     = "../docs/protocol.md"
	peerDocumentFile = "../docs/peer-protocol.md"
)

// documents says which kinds each of them describes.
var documents = map[string][]layout{documentFile: clientLayouts, peerDocumentFile: peerLayouts}

func readDocument(t *testing.T, file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var hexBlock = regexp.MustCompile("(?s)```hex (\\w+)\n(.*?)```")

func TestDocumentExamples(t *testing.T) {
	for file, layouts := range documents {
		document := readDocument(t, file)
		if *update {
			document = writeExamples(t, document, layouts)
			if err := os.WriteFile(file, []byte(document), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		blocks := make(map[string]string)
		for _, m := range hexBlock.FindAllStringSubmatch(document, -1) {
			blocks[m[1]] = m[2]
		}
		for _, l := range layouts {
			block := blocks[l.kind.String()]
			if want := annotate(l.kind); block != want {
				t.Errorf("the example of %v is\n%swant\n%s(go test ./codec -run Document -update)", l.kind, block, want)
				continue
			}
			// Whatever annotate wrote: the bytes as a reader takes them from the page.
			frame := hexOf(t, block)
			values, err := decodeFields(l.kind, bodyOf(frame))
			if err != nil || !reflect.DeepEqual(values, examples()[l.kind]) {
				t.Errorf("the example of %v says %v (%v)", l.kind, values, err)
			}
		}
	}
}

// writeExamples returns the document with its examples written anew.
func writeExamples(t *testing.T, document string, layouts []layout) string {
	return hexBlock.ReplaceAllStringFunc(document, func(block string) string {
		name := hexBlock.FindStringSubmatch(block)[1]
		for _, l := range layouts {
			if l.kind.String() == name {
				return "```hex " + name + "\n" + annotate(l.kind) + "```"
			}
		}
		t.Fatal("no kind", name)
		return ""
	})
}

// undocumented names the kinds that lack their row in the table of kinds, their section, or their
// example.
func undocumented(document string, layouts []layout) (missing []Kind) {
	for _, l := range layouts {
		for _, part := range partsOf(l.kind) {
			if !strings.Contains(document, part) {
				missing = append(missing, l.kind)
				break
			}
		}
	}
	return missing
}

func partsOf(kind Kind) []string {
	return []string{fmt.Sprintf("\n| %d | %v | ", kind, kind), fmt.Sprintf("\n### %v (%d)\n", kind, kind), fmt.Sprintf("\n```hex %v\n", kind)}
}

// TestDocumentsNameEveryKind also takes every part of every kind away, and must notice.
func TestDocumentsNameEveryKind(t *testing.T) {
	for file, layouts := range documents {
		document := readDocument(t, file)
		if missing := undocumented(document, layouts); len(missing) > 0 {
			t.Errorf("%s lacks %v", file, missing)
			continue
		}
		for _, l := range layouts {
			for _, part := range partsOf(l.kind) {
				if missing := undocumented(strings.Replace(document, part, "", 1), layouts); !reflect.DeepEqual(missing, []Kind{l.kind}) {
					t.Errorf("%s without %q: %v is missing", file, part, missing)
				}
			}
		}
	}
}

// hexOf reads the left column.
func hexOf(t *testing.T, block string) (b []byte) {
	for line := range strings.Lines(block) {
		left, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "  ")
		part, err := hex.DecodeString(strings.ReplaceAll(left, " ", ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		b = append(b, part...)
	}
	return b
}

// annotate writes a kind's example with its bytes explained.
func annotate(kind Kind) string {
	frame := appendFields(nil, kind, examples()[kind])
	body := bodyOf(frame)
	a := annotator{b: body}
	a.line(frame[:PrefixLen], fmt.Sprintf("length: %d", len(body)))
	fields := layoutOf(kind).fields
	a.next(1, fmt.Sprintf("array of %d", len(fields)+1))
	a.next(1, fmt.Sprintf("kind %d, %v", kind, kind))
	for i, f := range fields {
		a.value(f, examples()[kind][i], "")
	}
	return a.out.String()
}

type annotator struct {
	b   []byte
	out strings.Builder
}

func (a *annotator) next(n int, text string) {
	a.line(a.b[:n], text)
	a.b = a.b[n:]
}

func (a *annotator) line(b []byte, text string) {
	const width = 12
	for first := true; first || len(b) > 0; first = false {
		part := b[:min(len(b), width)]
		b = b[len(part):]
		if !first {
			text = "…"
		}
		fmt.Fprintf(&a.out, "%-*s  %s\n", 3*width-1, fmt.Sprintf("% x", part), text)
	}
}

func (a *annotator) value(f spec, v any, indent string) {
	switch v := v.(type) {
	case []any:
		a.list(f, v, indent)
		return
	case string:
		a.whole(fmt.Sprintf("%s%s: str %q", indent, f.name, v))
	case []byte:
		a.whole(fmt.Sprintf("%s%s: bin of %d", indent, f.name, len(v)))
	default:
		a.whole(fmt.Sprintf("%s%s: %d", indent, f.name, v))
	}
}

// whole takes one value of any width.
func (a *annotator) whole(text string) {
	w := walk{maxDepth: MaxDepth}
	n, fault, detail := w.value(a.b)
	if fault != 0 {
		panic(detail)
	}
	a.next(n, text)
}

func (a *annotator) list(f spec, v []any, indent string) {
	a.next(1, fmt.Sprintf("%s%s: array of %d", indent, f.name, len(v)))
	names := []string{"max_payload", "max_frame", "max_ids", "max_in_flight", "credit", "max_ttl", "default_ttl", "heartbeat", "idle_timeout", "resume_window",
		"max_multicast", "max_watched"}
	for i, e := range v {
		pair, ok := e.([]any)
		if !ok {
			elem := f.elem[0]
			if f.name == "limits" {
				elem.name = names[i]
			}
			a.value(elem, e, indent+"  ")
			continue
		}
		a.next(1, fmt.Sprintf("%s  array of %d", indent, len(pair)))
		for j, e := range pair {
			a.value(f.elem[j], e, indent+"    ")
		}
	}
}

// rows returns the cells of the table lines behind a heading or text, up to the first line of
// another sort.
func rows(t *testing.T, document, after string) (table [][]string) {
	_, rest, ok := strings.Cut(document, after)
	if !ok {
		t.Fatalf("the document has no %q", after)
	}
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if len(table) > 0 || strings.HasPrefix(line, "#") {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		table = append(table, cells)
	}
	if len(table) > 2 {
		return table[2:] // without the header
	}
	return nil
}

func TestDocumentFieldTables(t *testing.T) {
	for file, layouts := range documents {
		checkFieldTables(t, readDocument(t, file), layouts)
	}
}

func checkFieldTables(t *testing.T, document string, layouts []layout) {
	for _, l := range layouts {
		table := rows(t, document, fmt.Sprintf("\n### %v (%d)\n", l.kind, l.kind))
		if len(table) != len(l.fields) {
			t.Errorf("%v: %d rows, want %d", l.kind, len(table), len(l.fields))
			continue
		}
		for i, f := range l.fields {
			if got, want := table[i][:3], []string{strconv.Itoa(i + 1), f.name, f.typ}; !reflect.DeepEqual(got, want) {
				t.Errorf("%v: row %v, want %v", l.kind, got, want)
			}
		}
	}
}

func TestDocumentLists(t *testing.T) {
	client, peer := readDocument(t, documentFile), readDocument(t, peerDocumentFile)
	kind := func(i int) string { return Kind(i).String() }
	word := func(cell string) string { w, _, _ := strings.Cut(cell, " "); return w }
	for _, c := range []struct {
		document, heading string
		word              func(i int) string
		prefix            string
		from, to          int // the numbers that this table lists
		check             func(i int, row []string)
	}{
		{client, "| kind | name | who |", kind, "kind_", 0, firstPeerKind, func(i int, row []string) {
			if who := map[string]string{"C": "C→N", "N": "N→C", "both": "both"}[sender(Kind(i))]; row[2] != who {
				t.Errorf("%s: %s, want %s", row[1], row[2], who)
			}
		}},
		{peer, "| kind | name | who |", kind, "kind_", firstPeerKind, 256, func(i int, row []string) {
			if who := map[string]string{"D": "D→A", "A": "A→D", "both": "both"}[peerSender(Kind(i))]; row[2] != who {
				t.Errorf("%s: %s, want %s", row[1], row[2], who)
			}
		}},
		{client, "\n## Codes\n", func(i int) string { return Code(i).String() }, "code_", 0, 256, func(i int, row []string) {
			if row[2] == "" {
				return // not for sends
			}
			delivered := map[string]Delivered{"yes": DeliveredYes, "seen, refused": DeliveredYes, "no": DeliveredNo, "unknown": DeliveredUnknown}[row[2]]
			if c := Code(i); delivered != c.Delivered() || strings.HasPrefix(row[3], "safe") != c.SafeToRetry() || (row[4] == "yes") != c.Temporary() {
				t.Errorf("%v: the codec says %v, %v, %v", row, c.Delivered(), c.SafeToRetry(), c.Temporary())
			}
		}},
		{client, "\n## Faults\n", func(i int) string { return Fault(i).String() }, "fault_", 0, 256, func(i int, row []string) {
			closed := Fault(i) != FaultUnknownKind && Fault(i) != FaultBadToken
			if (row[2] == "yes") != closed || !strings.Contains(row[5], fmt.Sprintf("`distmsg_faults_total{fault=%q}`", Fault(i))) {
				t.Errorf("%v: wrong closed or counter", row)
			}
		}},
	} {
		// The heading of a table is itself a row: begin one line before.
		table := rows(t, c.document, c.heading)
		if strings.HasPrefix(c.heading, "|") {
			table = rows(t, strings.Replace(c.document, c.heading, "\nhere\n"+c.heading, 1), "\nhere\n")
		}
		listed := make(map[int]bool)
		for _, row := range table {
			i, err := strconv.Atoi(row[0])
			if err != nil {
				t.Errorf("%v: %v", row, err)
				continue
			}
			listed[i] = true
			if word(row[1]) != c.word(i) {
				t.Errorf("%d is %s, the document says %s", i, c.word(i), row[1])
			}
			c.check(i, row)
		}
		for i := range 256 {
			if known := i >= c.from && i < c.to && !strings.HasPrefix(c.word(i), c.prefix); known != listed[i] {
				t.Errorf("%s: known %v, in the document %v", c.word(i), known, listed[i])
			}
		}
	}
}

// TestDocumentCreditExample does the sums of the example again.
func TestDocumentCreditExample(t *testing.T) {
	const credit = 4 << 20 // the default of engine.Config
	size := len(AppendSend(nil, &Send{Seq: 1, To: []byte("bob"), From: []byte("alice"), Payload: []byte("hello")}))
	fit := credit / size
	half := (credit/2)/size + 1 // the first frame that leaves less than half
	total := half*size + credit
	document := readDocument(t, documentFile)
	for _, want := range []string{
		fmt.Sprintf("= %d bytes", size),
		fmt.Sprintf("%s of them make %s bytes, so the next one (%s) must wait", thousands(fit), thousands(fit*size), thousands((fit+1)*size)),
		fmt.Sprintf("%s × %d = %s are used and %s left", thousands(half), size, thousands(half*size), thousands(credit-half*size)),
		fmt.Sprintf("%s + %s = %s", thousands(half*size), thousands(credit), thousands(total)),
		fmt.Sprintf("%s frames (%s bytes)", thousands(total/size), thousands(total/size*size)),
	} {
		if !strings.Contains(strings.Join(strings.Fields(document), " "), want) {
			t.Errorf("the credit example lacks %q", want)
		}
	}
	if total != int(examples()[KindCredit][0].(uint64)) {
		t.Error("the example of credit is not that of the sums:", total)
	}
}

// TestDocumentMulticastExample does the sums of the example again.
func TestDocumentMulticastExample(t *testing.T) {
	const maxPayload, ids, bytes = 1 << 20, 10_000, 16
	const maxFrame = maxPayload + FrameOverhead
	all := make([]string, ids)
	for i := range all {
		all[i] = strings.Repeat("x", bytes)
	}
	document := strings.Join(strings.Fields(readDocument(t, documentFile)), " ")
	want := fmt.Sprintf("With max_frame %s and IDs of %d bytes, %s IDs leave %s bytes for the payload; one ID leaves %s", thousands(maxFrame), bytes,
		thousands(ids), thousands(maxFrame-MulticastSize(0, all)), thousands(maxFrame-MulticastSize(0, all[:1])))
	if !strings.Contains(document, want) {
		t.Errorf("the multicast example lacks %q", want)
	}
}

func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
