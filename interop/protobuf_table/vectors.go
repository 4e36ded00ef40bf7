package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// vector is one line: an object as it goes over the wire, in hexadecimal, and as it is recorded.
type vector struct {
	Version string `json:"apiVersion"`
	Kind    string `json:"kind"`
	Shape   string `json:"shape"`
	Wire    string `json:"wire"`
	JSON    string `json:"json"`
}

var shapes = []struct {
	name string
	filler
}{
	{"empty", filler{}},
	{"sparse", filler{chance: 0.3, most: 1, depth: 6}},
	{"zeros", filler{chance: 0.9, zeros: 0.6, most: 2, depth: 8}},
	{"mixed", filler{chance: 0.7, zeros: 0.2, most: 3, depth: 6}},
	{"dense", filler{chance: 1, zeros: 0.05, most: 2, depth: 7}},
	{"full", filler{chance: 1, least: 1, most: 1, depth: 8}},
}

// writeVectors writes every type in every shape, under the first kind it has.
func writeVectors(out io.Writer) error {
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	scheme := runtime.NewScheme()
	toWire := protobuf.NewSerializer(scheme, scheme)
	toJSON := serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme, serializer.SerializerOptions{})
	seen := map[reflect.Type]bool{}
	for index, kind := range kinds() {
		if seen[kind.typ] {
			continue
		}
		seen[kind.typ] = true
		for number, shape := range shapes {
			shape.filler.Rand = rand.New(rand.NewSource(int64(index*len(shapes) + number)))
			object := reflect.New(kind.typ)
			shape.filler.fill(object.Elem(), 0)
			sent := object.Interface().(runtime.Object)
			sent.GetObjectKind().SetGroupVersionKind(kind.gvk)
			var wire bytes.Buffer
			if err := toWire.Encode(sent, &wire); err != nil {
				return fmt.Errorf("%s: %w", kind.gvk, err)
			}

			// What a client of either encoding sees is what came back.
			envelope := runtime.Unknown{}
			if err := envelope.Unmarshal(wire.Bytes()[4:]); err != nil {
				return fmt.Errorf("%s: %w", kind.gvk, err)
			}
			object = reflect.New(kind.typ)
			if err := object.Interface().(message).Unmarshal(envelope.Raw); err != nil {
				return fmt.Errorf("%s: %w", kind.gvk, err)
			}
			got := object.Interface().(runtime.Object)
			got.GetObjectKind().SetGroupVersionKind(kind.gvk)
			asServed(object.Elem(), kind)
			text, err := json.Marshal(got)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.gvk, err)
			}
			var served bytes.Buffer
			if err := toJSON.Encode(got, &served); err != nil {
				return fmt.Errorf("%s: %w", kind.gvk, err)
			}
			if strings.TrimSuffix(served.String(), "\n") != string(text) {
				return fmt.Errorf("%s: the server's own serializer differs", kind.gvk)
			}
			version, name := kind.gvk.ToAPIVersionAndKind()
			line := vector{version, name, shape.name, hex.EncodeToString(wire.Bytes()), string(text)}
			if err := lines.Encode(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// asServed makes of a list what the server records of it, where the wire does not tell: no list is
// without items, but for one of metadata alone, whose items say what they are.
//
// Source: k8s.io/apiserver pkg/endpoints/handlers/response.go, transformResponseObject and
// asPartialObjectMetadataList.
func asServed(object reflect.Value, kind kind) {
	items := object.FieldByName("Items")
	if !strings.HasSuffix(kind.gvk.Kind, "List") || !items.IsValid() {
		return
	}
	if kind.gvk.Kind == "PartialObjectMetadataList" {
		for i := range items.Len() {
			item := items.Index(i).Addr().Interface().(*metav1.PartialObjectMetadata)
			item.SetGroupVersionKind(kind.gvk.GroupVersion().WithKind("PartialObjectMetadata"))
		}
		return
	}
	if items.IsNil() {
		items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	}
}
