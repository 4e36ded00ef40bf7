package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
	auditwebhook "k8s.io/apiserver/plugin/pkg/audit/webhook"
)

// webhookEvents is the events of one round; the queue holds them all.
const webhookEvents = 40_000

func processorNanos(b *testing.B) int64 {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// BenchmarkWebhook is processor time per event through truncate<buffered<webhook>>, from the first event
// to the end of the shutdown, against the receiver at KAUDIT_RECEIVER.
func BenchmarkWebhook(b *testing.B) {
	receiver := os.Getenv("KAUDIT_RECEIVER")
	if receiver == "" {
		b.Skip("KAUDIT_RECEIVER is not set: bench/webhook starts a receiver")
	}
	config := filepath.Join(b.TempDir(), "config")
	text := fmt.Sprintf("clusters: [{cluster: {server: 'http://%s'}}]\n", receiver)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	in := load(b)
	for _, c := range []struct{ name, line string }{
		{"metadata", in.LogBackend.Metadata}, {"requestresponse", in.LogBackend.RequestResponse},
	} {
		object, _, err := audit.Codecs.UniversalDecoder(auditinternal.SchemeGroupVersion).Decode([]byte(c.line), nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		event := object.(*auditinternal.Event)
		b.Run(c.name, func(b *testing.B) {
			var nanos, events int64
			for range b.N {
				backoff := webhook.DefaultRetryBackoffWithInitialDelay(10 * time.Second)
				plugin, err := auditwebhook.NewBackend(config, auditv1.SchemeGroupVersion, backoff, nil)
				if err != nil {
					b.Fatal(err)
				}
				backend := truncate.NewBackend(buffered.NewBackend(plugin, buffered.BatchConfig{
					BufferSize: webhookEvents, MaxBatchSize: 400, MaxBatchWait: 30 * time.Second, AsyncDelegate: true,
				}), truncate.Config{MaxEventSize: 102400, MaxBatchSize: 10485760}, auditv1.SchemeGroupVersion)
				stop := make(chan struct{})
				if err := backend.Run(stop); err != nil {
					b.Fatal(err)
				}
				before := processorNanos(b)
				for range webhookEvents {
					backend.ProcessEvents(event)
				}
				close(stop)
				backend.Shutdown()
				nanos += processorNanos(b) - before
				events += webhookEvents
			}
			b.ReportMetric(float64(nanos)/float64(events), "cpu-ns/event")
		})
	}
}
