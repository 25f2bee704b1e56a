package report

import (
	"reflect"
	"testing"

	"distmsg/loadtest/result"
)

// TestLoadIsComplete changes each value of a load. The page of a run shows all of them.
func TestLoadIsComplete(t *testing.T) {
	base := result.Report{Config: result.Settings{Attach: 2, Strategy: "random", InProcess: true}}
	before := configTable(&base)
	fields := reflect.TypeFor[result.Settings]()
	for i := range fields.NumField() {
		r := base
		switch v := reflect.ValueOf(&r.Config).Elem().Field(i); v.Kind() {
		case reflect.String:
			v.SetString("something")
		case reflect.Int:
			v.SetInt(7)
		case reflect.Uint64:
			v.SetUint(7)
		case reflect.Float64:
			v.SetFloat(0.5)
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Slice:
			v.Set(reflect.ValueOf([]string{"10.0.0.1:7400"}))
		case reflect.Pointer:
			v.Set(reflect.ValueOf(new(0.5)))
		default:
			t.Fatalf("no value for %s", fields.Field(i).Name)
		}
		if reflect.DeepEqual(configTable(&r), before) {
			t.Errorf("the page shows no %s", fields.Field(i).Name)
		}
	}
}
