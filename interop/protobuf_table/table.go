package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// printers are the types whose JSON is not made of their fields, by the letter the table has for them.
var printers = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():               "T",
	reflect.TypeFor[metav1.MicroTime]():          "M",
	reflect.TypeFor[metav1.Duration]():           "D",
	reflect.TypeFor[resource.Quantity]():         "Q",
	reflect.TypeFor[intstr.IntOrString]():        "O",
	reflect.TypeFor[runtime.RawExtension]():      "R",
	reflect.TypeFor[metav1.FieldsV1]():           "F",
	reflect.TypeFor[apiextensionsv1.JSON]():      "F",
	reflect.TypeFor[apiextensionsv1beta1.JSON](): "F",
}

// schemas are the types that are one of two things; the letter is followed by the schema's type.
var schemas = map[reflect.Type]string{
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrBool]():             "P",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrBool]():        "P",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrArray]():            "A",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrArray]():       "A",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrStringArray]():      "S",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrStringArray](): "S",
}

var (
	marshaler = reflect.TypeFor[json.Marshaler]()
	wire      = reflect.TypeFor[message]()
)

// field is one field of a struct: its number on the wire (0: it has none), its name in JSON, how it is
// left out, and its form.
type field struct {
	number int
	name   string
	flags  string
	form   form
}

// form is what a field holds: `*`, `[`, `{` around a letter, or a struct.
type form struct {
	around string
	letter string
	typ    reflect.Type
}

func fields(typ reflect.Type) []field {
	var found []field
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		number := 0
		if proto := strings.Split(f.Tag.Get("protobuf"), ","); len(proto) > 1 {
			number, _ = strconv.Atoi(proto[1])
		}
		if tag[0] == "-" {
			if number != 0 {
				panic(fmt.Sprintf("%s.%s is on the wire and not in JSON", typ, f.Name))
			}
			continue
		}
		if f.Type == reflect.TypeFor[metav1.TypeMeta]() && number == 0 {
			continue
		}
		isInline := f.Anonymous && tag[0] == ""
		if !isInline && (tag[0] == "" || !f.IsExported()) {
			panic(fmt.Sprintf("%s.%s has no name in JSON", typ, f.Name))
		}
		flags := ""
		for _, option := range tag[1:] {
			switch option {
			case "omitempty":
				flags += "o"
			case "omitzero":
				if f.Type != reflect.TypeFor[metav1.Time]() {
					panic(fmt.Sprintf("%s.%s: omitzero of %s", typ, f.Name, f.Type))
				}
				flags += "z"
			case "inline":
			default:
				panic(fmt.Sprintf("%s.%s: option %s", typ, f.Name, option))
			}
		}
		if isInline {
			flags = "i"
		}
		found = append(found, field{number, tag[0], flags, formOf(f.Type)})
	}
	return found
}

func formOf(typ reflect.Type) form {
	if letter, ok := printers[typ]; ok {
		return form{letter: letter}
	}
	if letter, ok := schemas[typ]; ok {
		schema, _ := typ.FieldByName("Schema")
		return form{letter: letter, typ: schema.Type.Elem()}
	}
	if typ.Implements(marshaler) || reflect.PointerTo(typ).Implements(marshaler) {
		if typ.Kind() != reflect.Pointer {
			panic(fmt.Sprintf("%s prints itself", typ))
		}
	}
	around := func(sign string) form {
		inner := formOf(typ.Elem())
		inner.around = sign + inner.around
		return inner
	}
	switch typ.Kind() {
	case reflect.Bool:
		return form{letter: "b"}
	case reflect.Int32:
		return form{letter: "i"}
	case reflect.Int64:
		return form{letter: "l"}
	case reflect.Float64:
		return form{letter: "d"}
	case reflect.String:
		return form{letter: "s"}
	case reflect.Struct:
		return form{letter: "m", typ: typ}
	case reflect.Pointer:
		return around("*")
	case reflect.Map:
		if typ.Key().Kind() != reflect.String {
			panic(fmt.Sprintf("a map by %s", typ.Key()))
		}
		return around("{")
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			return form{letter: "y"}
		}
		// A list that is a message of its own: field 1, repeated.
		if reflect.PointerTo(typ).Implements(wire) {
			if typ.Elem().Kind() != reflect.String {
				panic(fmt.Sprintf("%s is a list of its own", typ))
			}
			return form{letter: "V"}
		}
		return around("[")
	default:
		panic(fmt.Sprintf("%s has no form", typ))
	}
}

// text is a form as it stands in the table, where structs have numbers.
func (f form) text(numbers map[reflect.Type]int) string {
	if f.typ == nil {
		return f.around + f.letter
	}
	return f.around + f.letter + strconv.Itoa(numbers[f.typ])
}

// writeTable writes the table: structs first, in the order of their numbers, then kinds.
func writeTable(out io.Writer) error {
	all := kinds()

	// Every struct that can be reached, by way of the kinds in their order.
	var structs []reflect.Type
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		structs = append(structs, typ)
		for _, field := range fields(typ) {
			if field.form.typ != nil {
				visit(field.form.typ)
			}
		}
	}
	for _, kind := range all {
		visit(kind.typ)
	}

	// Structs that are printed alike are one: start with one class, and split it until nothing changes.
	class := map[reflect.Type]int{}
	for _, typ := range structs {
		class[typ] = 0
	}
	line := func(typ reflect.Type) string {
		var words []string
		for _, field := range fields(typ) {
			name := field.name
			if name == "" {
				name = "."
			}
			words = append(words, fmt.Sprintf("%d%s:%s:%s", field.number, field.flags, name, field.form.text(class)))
		}
		return strings.Join(words, " ")
	}
	for count := 1; ; {
		next := map[reflect.Type]int{}
		byLine := map[string]int{}
		for _, typ := range structs {
			text := line(typ)
			number, ok := byLine[text]
			if !ok {
				number = len(byLine)
				byLine[text] = number
			}
			next[typ] = number
		}
		class = next
		if len(byLine) == count {
			break
		}
		count = len(byLine)
	}

	lines := map[int]string{}
	for _, typ := range structs {
		lines[class[typ]] = line(typ)
	}
	for number := range len(lines) {
		if _, err := fmt.Fprintf(out, "%s\n", lines[number]); err != nil {
			return err
		}
	}
	groups := map[string][]string{}
	for _, kind := range all {
		version := kind.gvk.GroupVersion().String()
		groups[version] = append(groups[version], fmt.Sprintf("%s:%d", kind.gvk.Kind, class[kind.typ]))
	}
	versions := make([]string, 0, len(groups))
	for version := range groups {
		versions = append(versions, version)
	}
	sort.Strings(versions)
	for _, version := range versions {
		if _, err := fmt.Fprintf(out, "=%s %s\n", version, strings.Join(groups[version], " ")); err != nil {
			return err
		}
	}
	return nil
}
