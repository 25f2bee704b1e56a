package identity

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"distmsg/engine"
)

// Limits are limits by name. The names are those of the fields of engine.Limits in lower case, with
// underscores between the words.
type Limits map[string]float64

// engine returns the limits as the engine takes them.
func (l Limits) engine() (engine.Limits, error) {
	var limits engine.Limits
	fields := limitFields(&limits)
	for _, name := range slices.Sorted(maps.Keys(l)) {
		field, known := fields[name]
		if !known {
			return limits, fmt.Errorf("limits has %q: the limits are %s", name, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		value := l[name]
		switch {
		case !(value > 0) || value > 1<<53:
			return limits, fmt.Errorf("limits: %s is %v, and must be over 0", name, value)
		case field.CanFloat():
			field.SetFloat(value)
		case value != math.Trunc(value) || field.OverflowInt(int64(value)):
			return limits, fmt.Errorf("limits: %s is %v, and must be a whole number", name, value)
		default:
			field.SetInt(int64(value))
		}
	}
	return limits, nil
}

// limitFields returns the fields of limits that hold numbers, by their names in files.
func limitFields(limits *engine.Limits) map[string]reflect.Value {
	fields := make(map[string]reflect.Value)
	v := reflect.ValueOf(limits).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.CanInt() || f.CanFloat() {
			fields[underscored(v.Type().Field(i).Name)] = f
		}
	}
	return fields
}

// underscored converts BoundIDs to bound_ids.
func underscored(name string) string {
	var b strings.Builder
	lower := false
	for _, r := range name {
		upper := r >= 'A' && r <= 'Z'
		if upper && lower {
			b.WriteByte('_')
		}
		lower = !upper
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}
