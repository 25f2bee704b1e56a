package settings

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// typed returns what one would type for a value from a file. Its type must be that of the flag: a
// number where the flag wants text is refused, since 007 would be 7.
func typed(f *pflag.Flag, value any) ([]string, error) {
	_, isList := f.Value.(pflag.SliceValue)
	want := "text"
	switch kind := f.Value.Type(); {
	case isList:
		want = "a list of " + elementOf(f)
		if elements, ok := value.([]any); ok {
			return textsOf(f, elements)
		}
		if text, ok := element(f, value); ok {
			return []string{text}, nil
		}
	case kind == "bool":
		want = "true or false"
		if b, ok := value.(bool); ok {
			return []string{strconv.FormatBool(b)}, nil
		}
	case isInteger(kind):
		want = "a whole number"
		if text, ok := integer(value); ok {
			return []string{text}, nil
		}
	case kind == "float64":
		want = "a number"
		if text, ok := number(value); ok {
			return []string{text}, nil
		}
	default:
		if text, ok := value.(string); ok {
			return []string{text}, nil
		}
		if text, ok := integer(value); ok && kind == "size" { // a number of bytes
			return []string{text}, nil
		}
		if kind == "duration" {
			want = "a duration as text, as in 10s"
		}
	}
	return nil, fmt.Errorf("%s is %s: want %s", f.Name, describe(value), want)
}

func isInteger(kind string) bool {
	return strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint") || kind == "count"
}

func integer(value any) (string, bool) {
	switch n := value.(type) {
	case int:
		return strconv.Itoa(n), true
	case int64:
		return strconv.FormatInt(n, 10), true
	case uint64:
		return strconv.FormatUint(n, 10), true
	}
	return "", false
}

func number(value any) (string, bool) {
	if x, ok := value.(float64); ok {
		return strconv.FormatFloat(x, 'g', -1, 64), true
	}
	return integer(value)
}

// elementOf names what the elements of a list are: text or numbers.
func elementOf(f *pflag.Flag) string {
	if f.Value.Type() == "float64Slice" {
		return "numbers"
	}
	return "text"
}

// element returns an element of a list as one would type it.
func element(f *pflag.Flag, value any) (string, bool) {
	if elementOf(f) == "numbers" {
		return number(value)
	}
	text, ok := value.(string)
	return text, ok
}

func textsOf(f *pflag.Flag, elements []any) ([]string, error) {
	texts := make([]string, 0, len(elements))
	for i, e := range elements {
		text, ok := element(f, e)
		if !ok {
			return nil, fmt.Errorf("element %d of %s is %s: want %s", i+1, f.Name, describe(e), elementOf(f))
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// describe names the type of a value from a file. It does not quote text, which may be a secret in
// a wrong place.
func describe(value any) string {
	switch v := value.(type) {
	case nil:
		return "without a value"
	case string:
		return "text"
	case bool:
		return fmt.Sprintf("%t, without quotes", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case float64:
		return fmt.Sprintf("the number %v", v)
	}
	if text, ok := integer(value); ok {
		return "the number " + text
	}
	return "a date or a time"
}

// plain says in plain words that text is not what f wants.
func plain(f *pflag.Flag, text string, err error) error {
	quoted := strconv.Quote(text)
	switch kind := f.Value.Type(); {
	case kind == "bool":
		return fmt.Errorf("is %s: want true or false", quoted)
	case isInteger(kind):
		return fmt.Errorf("is %s: want a whole number", quoted)
	case kind == "duration":
		return fmt.Errorf("is %s: want a duration, as in 10s or 5m", quoted)
	}
	return fmt.Errorf("is %s: %w", quoted, err)
}
