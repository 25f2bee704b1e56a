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

// Limits are limits by name. A rate has two names: messages_per_second and messages_burst are those
// of engine.Limits.Messages.
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
		if !(value > 0) || value > 1<<53 || value != math.Trunc(value) || field.OverflowInt(int64(value)) {
			return limits, fmt.Errorf("limits: %s is %v, and must be a whole number over 0", name, value)
		}
		if rate, isBurst := strings.CutSuffix(name, burst); isBurst && l[rate+perSecond] == 0 {
			return limits, fmt.Errorf("limits: %s needs %s", name, rate+perSecond)
		}
		field.SetInt(int64(value))
	}
	return limits, nil
}

// The ends of the names of rates.
const (
	perSecond = "_per_second"
	burst     = "_burst"
)

// limitFields returns the numbers in limits by their names.
func limitFields(limits *engine.Limits) map[string]reflect.Value {
	fields := make(map[string]reflect.Value)
	v := reflect.ValueOf(limits).Elem()
	for i := range v.NumField() {
		name := underscored(v.Type().Field(i).Name)
		if rate, ok := v.Field(i).Addr().Interface().(*engine.Rate); ok {
			r := reflect.ValueOf(rate).Elem()
			fields[name+perSecond], fields[name+burst] = r.FieldByName("PerSecond"), r.FieldByName("Burst")
			continue
		}
		fields[name] = v.Field(i)
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
