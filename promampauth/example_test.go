package promampauth_test

import (
	"fmt"
	"log"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/promampauth"
	"github.com/prometheus/client_golang/prometheus"
)

// Two clients in one registry. The request of the first is answered 503 once.
func Example() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "GET /assets", Status: 503, RetryAfter: "0"})

	registry := prometheus.NewRegistry() // or prometheus.DefaultRegisterer
	for _, name := range []string{"reports", "issuance"} {
		collector := new(promampauth.Collector)
		cfg := amp.Config() // or ampauth.ConfigFromEnv
		cfg.OnEvent = collector.OnEvent
		client, err := ampauth.NewClient(cfg)
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		collector.Observe(client)
		prometheus.WrapRegistererWith(prometheus.Labels{"client": name}, registry).MustRegister(collector)

		resp, err := client.Get(cfg.URL("/assets"))
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}

	families, err := registry.Gather() // what promhttp.HandlerFor(registry, ...) serves
	if err != nil {
		log.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetCounter().GetValue() == 0 || strings.Contains(family.GetName(), "_wait") {
				continue
			}
			fmt.Print(family.GetName())
			for _, label := range m.GetLabel() {
				fmt.Printf(" %s=%s", label.GetName(), label.GetValue())
			}
			fmt.Println("", m.GetCounter().GetValue())
		}
	}
	// Output:
	// ampauth_call_retries_total client=reports reason=server_error 1
	// ampauth_logins_total client=issuance operation=obtain result=ok 1
	// ampauth_logins_total client=reports operation=obtain result=ok 1
}

// exampleT is the t of an example, which has none: in a test, take its own.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (t *exampleT) Helper()                           {}
func (t *exampleT) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Logf(string, ...any)               {}
func (t *exampleT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// end runs the cleanups, the last one first.
func (t *exampleT) end() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		f := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		f()
	}
}
