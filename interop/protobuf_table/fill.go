package main

import (
	"fmt"
	"math"
	"math/rand"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// filler gives an object values that depend on its seed alone.
type filler struct {
	*rand.Rand
	// How likely a field has a value.
	chance float64
	// How likely that value is its type's zero, said outright.
	zeros float64
	// Elements of a list or map, at least and at most.
	least, most int
	// Structs within structs at most; below, nothing that can be absent is there.
	depth int
}

var words = []string{
	"a", "db", "shop", "kube-system", "app.kubernetes.io/name", "nginx:1.27", "Running", "10.0.0.1", "tcp",
	"x<y>&z", "quote\"back\\slash", "tab\tline\nfeed\r\b\f\x01\x7f", "ümläut", "日本", "\u2028\u2029", "𝄞", "\ufffd", "/var/lib",
}

var texts = []string{
	`{}`, `null`, `{"a":1}`, ` { "f:metadata" : { "f:labels" : { "." : { } , "f:app" : { } } } } `,
	`{"b":"<&>","a":[1.0,1e400,-0,"\u003c\/"],"a":true}`, "{\n\t\"z\": \"\u2028\"\n}",
}

var amounts = []string{
	"0", "1", "5", "12", "100m", "250m", "1500m", "0.5", "1.5", "1000", "1k", "999k", "16Gi", "1Ki", "8Ki", "1024Ki", "1536Mi",
	"128974848", "129e6", "12e6", "1.5e3", "123Mi", "1e3", "-1", "-500m", "1n", "3u", "10E", "9223372036854775807", "0.1Gi", "1.5Gi",
	"100Pi", "7Ei", "16777216000", "123456789012345678901234567890", "1000000000000000001", "1e-3", "5e-9", "0.0000000001",
}

func (f *filler) word() string { return words[f.Intn(len(words))] }

func (f *filler) number() int64 {
	switch f.Intn(6) {
	case 0:
		return math.MaxInt64
	case 1:
		return math.MinInt64
	case 2:
		return -int64(f.Intn(1000))
	default:
		return int64(f.Intn(100000))
	}
}

func (f *filler) float() float64 {
	switch f.Intn(8) {
	case 0:
		return 1e21
	case 1:
		return 1e-7
	case 2:
		return -1.5e-9
	case 3:
		return 123456789.125
	case 4:
		return math.MaxFloat64
	case 5:
		return math.Copysign(0, -1)
	case 6:
		return 5e-324
	default:
		return float64(f.Intn(1000)) / 8
	}
}

func (f *filler) time() time.Time {
	switch f.Intn(8) {
	case 0:
		return time.Time{}
	case 1:
		return time.Unix(0, 0)
	case 2:
		return time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	case 3:
		return time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)
	case 4:
		return time.Date(1969, 12, 31, 23, 59, 59, 123456789, time.UTC)
	default:
		return time.Unix(f.Int63n(4e9), f.Int63n(1e9))
	}
}

// fill gives value a value of its type.
func (f *filler) fill(value reflect.Value, depth int) {
	if f.Float64() < f.zeros {
		return
	}
	switch typ := value.Type(); typ {
	case reflect.TypeFor[metav1.Time]():
		value.Set(reflect.ValueOf(metav1.Time{Time: f.time()}))
		return
	case reflect.TypeFor[metav1.MicroTime]():
		value.Set(reflect.ValueOf(metav1.MicroTime{Time: f.time()}))
		return
	case reflect.TypeFor[metav1.Duration]():
		all := []time.Duration{0, 1, 999, 1500, time.Millisecond, 90 * time.Second, -time.Hour, 1<<63 - 1, -1 << 63, time.Duration(f.Int63n(1e14))}
		value.Set(reflect.ValueOf(metav1.Duration{Duration: all[f.Intn(len(all))]}))
		return
	case reflect.TypeFor[resource.Quantity]():
		value.Set(reflect.ValueOf(resource.MustParse(amounts[f.Intn(len(amounts))])))
		return
	case reflect.TypeFor[intstr.IntOrString]():
		if f.Intn(2) == 0 {
			value.Set(reflect.ValueOf(intstr.FromInt32(int32(f.Intn(70000) - 100))))
		} else {
			value.Set(reflect.ValueOf(intstr.FromString(f.word())))
		}
		return
	case reflect.TypeFor[runtime.RawExtension]():
		value.Set(reflect.ValueOf(runtime.RawExtension{Raw: []byte(texts[f.Intn(len(texts))])}))
		return
	default:
		if printers[typ] == "F" {
			value.FieldByName("Raw").SetBytes([]byte(texts[f.Intn(len(texts))]))
			return
		}
		if schemas[typ] != "" {
			f.schema(value, depth)
			return
		}
	}
	switch value.Kind() {
	case reflect.Bool:
		value.SetBool(true)
	case reflect.Int32:
		value.SetInt(int64(int32(f.number())))
	case reflect.Int64:
		value.SetInt(f.number())
	case reflect.Float64:
		value.SetFloat(f.float())
	case reflect.String:
		value.SetString(f.word())
	case reflect.Pointer:
		if depth >= f.depth && value.Type().Elem().Kind() == reflect.Struct {
			return
		}
		value.Set(reflect.New(value.Type().Elem()))
		f.fill(value.Elem(), depth)
	case reflect.Slice:
		if value.Type().Elem().Kind() == reflect.Uint8 {
			value.SetBytes([]byte(f.word()))
			return
		}
		if depth >= f.depth && value.Type().Elem().Kind() == reflect.Struct {
			return
		}
		count := f.least + f.Intn(f.most-f.least+1)
		value.Set(reflect.MakeSlice(value.Type(), count, count))
		for i := range count {
			f.fill(value.Index(i), depth)
		}
	case reflect.Map:
		if depth >= f.depth && value.Type().Elem().Kind() == reflect.Struct {
			return
		}
		value.Set(reflect.MakeMap(value.Type()))
		for range f.least + f.Intn(f.most-f.least+1) {
			key, element := reflect.New(value.Type().Key()).Elem(), reflect.New(value.Type().Elem()).Elem()
			key.SetString(f.word())
			f.fill(element, depth)
			value.SetMapIndex(key, element)
		}
	case reflect.Struct:
		for i := range value.NumField() {
			field := value.Type().Field(i)
			if field.Type == reflect.TypeFor[metav1.TypeMeta]() || field.Tag.Get("protobuf") == "" {
				continue
			}
			if f.Float64() < f.chance {
				f.fill(value.Field(i), depth+1)
			}
		}
	default:
		panic(fmt.Sprintf("cannot fill %s", value.Type()))
	}
}

// schema fills one of the types that are one of two things.
func (f *filler) schema(value reflect.Value, depth int) {
	what := f.Intn(3)
	if what == 0 && depth < f.depth {
		schema := value.FieldByName("Schema")
		schema.Set(reflect.New(schema.Type().Elem()))
		f.fill(schema.Elem(), depth+1)
		return
	}
	if allows := value.FieldByName("Allows"); allows.IsValid() {
		allows.SetBool(what == 1)
	}
	if property := value.FieldByName("Property"); property.IsValid() {
		property.Set(reflect.ValueOf([]string{f.word(), f.word()}))
	}
	if all := value.FieldByName("JSONSchemas"); all.IsValid() && what == 1 && depth < f.depth {
		all.Set(reflect.MakeSlice(all.Type(), 2, 2))
		f.fill(all.Index(0), depth+1)
	}
}
