// Package bench measures kube-apiserver's own audit code on the inputs of bench/inputs.json, so that
// kaudit's figures can be put beside it in one run.
package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	auditlog "k8s.io/apiserver/plugin/pkg/audit/log"
)

type userInput struct {
	Name   string   `json:"name"`
	UID    string   `json:"uid"`
	Groups []string `json:"groups"`
}

type attributesInput struct {
	User            userInput `json:"user"`
	Verb            string    `json:"verb"`
	ResourceRequest bool      `json:"resourceRequest"`
	APIGroup        string    `json:"apiGroup"`
	APIVersion      string    `json:"apiVersion"`
	Resource        string    `json:"resource"`
	Subresource     string    `json:"subresource"`
	Namespace       string    `json:"namespace"`
	Name            string    `json:"name"`
	Path            string    `json:"path"`
}

type inputs struct {
	Evaluate struct {
		Last     attributesInput `json:"attrs_last"`
		NoMatch  attributesInput `json:"attrs_nomatch"`
		Policies []struct {
			Name string `json:"name"`
			Doc  string `json:"doc"`
		} `json:"policies"`
	} `json:"evaluate"`
	LogBackend struct {
		Metadata        string `json:"metadata_line"`
		RequestResponse string `json:"requestresponse_line"`
	} `json:"log_backend"`
	RequestInfo []struct {
		Name   string `json:"name"`
		Method string `json:"method"`
		Target string `json:"target"`
	} `json:"request_info"`
	Chain struct {
		Method   string            `json:"method"`
		Target   string            `json:"target"`
		Headers  map[string]string `json:"headers"`
		Remote   string            `json:"remote_addr"`
		User     userInput         `json:"user"`
		Request  string            `json:"request_object_json"`
		Response string            `json:"response_object_json"`
		Plain    int               `json:"plain_response_bytes"`
	} `json:"chain"`
}

func load(b *testing.B) inputs {
	b.Helper()
	data, err := os.ReadFile("../inputs.json")
	if err != nil {
		b.Fatal(err)
	}
	var in inputs
	if err := json.Unmarshal(data, &in); err != nil {
		b.Fatal(err)
	}
	return in
}

func (u userInput) info() user.Info {
	return &user.DefaultInfo{Name: u.Name, UID: u.UID, Groups: u.Groups}
}

func (a attributesInput) record() authorizer.Attributes {
	return authorizer.AttributesRecord{
		User: a.User.info(), Verb: a.Verb, ResourceRequest: a.ResourceRequest, APIGroup: a.APIGroup,
		APIVersion: a.APIVersion, Resource: a.Resource, Subresource: a.Subresource, Namespace: a.Namespace,
		Name: a.Name, Path: a.Path,
	}
}

func BenchmarkEvaluate(b *testing.B) {
	in := load(b)
	for _, p := range in.Evaluate.Policies {
		loaded, err := policy.LoadPolicyFromBytes([]byte(p.Doc))
		if err != nil {
			b.Fatal(err)
		}
		evaluator := policy.NewPolicyRuleEvaluator(loaded)
		for name, attributes := range map[string]authorizer.Attributes{
			"last": in.Evaluate.Last.record(), "nomatch": in.Evaluate.NoMatch.record(),
		} {
			b.Run(p.Name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					evaluator.EvaluatePolicyRule(attributes)
				}
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	in := load(b)
	for name, line := range map[string]string{
		"metadata": in.LogBackend.Metadata, "requestresponse": in.LogBackend.RequestResponse,
	} {
		object, _, err := audit.Codecs.UniversalDecoder(auditinternal.SchemeGroupVersion).Decode([]byte(line), nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		event := object.(*auditinternal.Event)
		backend := auditlog.NewBackend(io.Discard, auditlog.FormatJson, auditv1.SchemeGroupVersion)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				backend.ProcessEvents(event)
			}
		})
	}
}

func resolver() *request.RequestInfoFactory {
	return &request.RequestInfoFactory{
		APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api"),
	}
}

func BenchmarkRequestInfo(b *testing.B) {
	in := load(b)
	for _, c := range in.RequestInfo {
		r := httptest.NewRequest(c.Method, c.Target, nil)
		factory := resolver()
		b.Run(c.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := factory.NewRequestInfo(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// withUser stands where authentication stands.
func withUser(next http.Handler, info user.Info) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), info)))
	})
}

// sink is the chain's response writer: it keeps nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}

func BenchmarkChain(b *testing.B) {
	in := load(b)
	plain := bytes.Repeat([]byte("x"), in.Chain.Plain)
	configMap := func(text string) runtime.Object {
		return &runtime.Unknown{Raw: []byte(text), ContentType: runtime.ContentTypeJSON}
	}
	gv := schema.GroupVersion{Version: "v1"}
	gvr := gv.WithResource("configmaps")
	serializer := passThrough{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		audit.LogRequestObject(r.Context(), configMap(in.Chain.Request), gv, gvr, "", serializer)
		audit.LogResponseObject(r.Context(), configMap(in.Chain.Response), gv, serializer)
		w.WriteHeader(201)
		_, _ = w.Write(plain)
	})
	build := func(level string) http.Handler {
		var h http.Handler = handler
		if level != "" {
			loaded, err := policy.LoadPolicyFromBytes([]byte(
				"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: " + level + "\n"))
			if err != nil {
				b.Fatal(err)
			}
			backend := auditlog.NewBackend(io.Discard, auditlog.FormatJson, auditv1.SchemeGroupVersion)
			h = filters.WithAudit(h, backend, policy.NewPolicyRuleEvaluator(loaded),
				func(*http.Request, *request.RequestInfo) bool { return false })
		}
		h = withUser(h, in.Chain.User.info())
		h = filters.WithRequestInfo(h, resolver())
		h = filters.WithRequestReceivedTimestamp(h)
		if level != "" {
			h = filters.WithAuditInit(h)
		}
		return h
	}
	for _, level := range []string{"", "None", "Metadata", "RequestResponse"} {
		name := level
		if name == "" {
			name = "bare"
		}
		chain := build(level)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(in.Chain.Method, in.Chain.Target, nil)
				for key, value := range in.Chain.Headers {
					r.Header.Set(key, value)
				}
				r.RemoteAddr = in.Chain.Remote
				chain.ServeHTTP(&sink{header: http.Header{}}, r)
			}
		})
	}
}

// passThrough encodes a runtime.Unknown by writing its bytes, the cheapest serializer there is: upstream's
// own costs more.
type passThrough struct{}

func (passThrough) SupportedMediaTypes() []runtime.SerializerInfo {
	return []runtime.SerializerInfo{{
		MediaType: runtime.ContentTypeJSON, EncodesAsText: true, Serializer: raw{},
	}}
}
func (passThrough) EncoderForVersion(runtime.Encoder, runtime.GroupVersioner) runtime.Encoder {
	return raw{}
}
func (passThrough) DecoderToVersion(runtime.Decoder, runtime.GroupVersioner) runtime.Decoder {
	return raw{}
}

type raw struct{}

func (raw) Encode(object runtime.Object, w io.Writer) error {
	_, err := w.Write(object.(*runtime.Unknown).Raw)
	return err
}
func (raw) Identifier() runtime.Identifier { return "raw" }
func (raw) Decode([]byte, *schema.GroupVersionKind, runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	return nil, nil, io.EOF
}
