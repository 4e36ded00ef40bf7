package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	lumberjack "gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/apimachinery/pkg/util/wait"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	auditlog "k8s.io/apiserver/plugin/pkg/audit/log"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
	"k8s.io/apiserver/plugin/pkg/audit/webhook"
)

// events is how many events each backend is given; kaudit's half gives as many.
const events = 40000

func decoded(b *testing.B, line string) *auditinternal.Event {
	b.Helper()
	object, _, err := audit.Codecs.UniversalDecoder(auditinternal.SchemeGroupVersion).Decode([]byte(line), nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	return object.(*auditinternal.Event)
}

// cpu is the processor time that this process has spent.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure prints what one event costs, in processor time, from the first to the end of the shutdown.
func measure(b *testing.B, name string, event *auditinternal.Event, backend audit.Backend) {
	stop := make(chan struct{})
	if err := backend.Run(stop); err != nil {
		b.Fatal(err)
	}
	before := cpu()
	for range events {
		backend.ProcessEvents(event)
	}
	close(stop)
	backend.Shutdown()
	spent := float64((cpu() - before).Nanoseconds()) / events
	// In the notation of the others, so that one reader reads all.
	fmt.Printf("BenchmarkBackend/%s-1 %d %.0f ns/op 0 allocs/op\n", name, events, spent)
}

func BenchmarkBackend(b *testing.B) {
	file := func(folder string) *lumberjack.Logger {
		return &lumberjack.Logger{Filename: filepath.Join(folder, fmt.Sprintf("go-%d.log", os.Getpid())), MaxSize: 1000}
	}
	memory := "/dev/shm"
	in := load(b).LogBackend
	event := decoded(b, in.Metadata)
	for name, folder := range map[string]string{"log-blocking": b.TempDir(), "log-memory": memory} {
		logger := file(folder)
		measure(b, name, event, auditlog.NewBackend(logger, auditlog.FormatJson, auditv1.SchemeGroupVersion))
		_ = logger.Close()
		_ = os.Remove(logger.Filename)
	}
	logger := file(memory)
	measure(b, "log-batch", event, buffered.NewBackend(
		auditlog.NewBackend(logger, auditlog.FormatJson, auditv1.SchemeGroupVersion),
		buffered.BatchConfig{BufferSize: events, MaxBatchSize: 400, MaxBatchWait: 30 * time.Second}))
	_ = logger.Close()
	_ = os.Remove(logger.Filename)

	receiver := os.Getenv("KAUDIT_BENCH_RECEIVER")
	if receiver == "" {
		return
	}
	config := filepath.Join(b.TempDir(), "kubeconfig")
	text, _ := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c"}}},
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": receiver}}},
	})
	if err := os.WriteFile(config, text, 0o600); err != nil {
		b.Fatal(err)
	}
	for name, line := range map[string]string{
		"truncate-buffered-webhook":                 in.Metadata,
		"truncate-buffered-webhook-requestresponse": in.RequestResponse,
	} {
		hook, err := webhook.NewBackend(config, auditv1.SchemeGroupVersion, wait.Backoff{Duration: time.Second, Steps: 5}, nil)
		if err != nil {
			b.Fatal(err)
		}
		measure(b, name, decoded(b, line), truncate.NewBackend(
			buffered.NewBackend(hook, buffered.BatchConfig{
				BufferSize: events, MaxBatchSize: 400, MaxBatchWait: 30 * time.Second, AsyncDelegate: true}),
			truncate.Config{MaxEventSize: 102400, MaxBatchSize: 10485760}, auditv1.SchemeGroupVersion))
	}
}
