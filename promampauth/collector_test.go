package promampauth_test

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/promampauth"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLintersOfPrometheusFindNothing(t *testing.T) {
	inWorld(t, func(cfg *ampauth.Config) { cfg.Lifetime = time.Hour }, func(w *world) {
		w.do(w.client.Client, ampAssets)
		problems, err := testutil.GatherAndLint(w.registry)
		if err != nil {
			w.Fatal(err)
		}
		for _, p := range problems {
			w.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
}

func TestLoginsAreCountedAndMeasured(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampObtain, Delay: 2 * time.Second}, ampauthtest.Fault{Route: ampRefresh, Delay: 3 * time.Second, Status: 500},
			ampauthtest.Fault{Route: ampObtain, Delay: time.Second / 2, Status: 400})
		if _, err := w.client.Tokens.Token(w.Context()); err != nil {
			w.Fatal(err)
		}
		_, _ = w.client.Tokens.Refresh(w.Context())
		w.want("ampauth_login_duration_seconds", map[string]string{
			"operation=obtain": "1 in 2 s",
			"error_type=request_failed operation=refresh":     "1 in 3 s",
			"error_type=credentials_refused operation=obtain": "1 in 0.5 s",
		})
		w.want("ampauth_logins_total", map[string]string{"operation=obtain result=ok": "1", "operation=obtain result=error": "1", "operation=refresh result=error": "1"})
	})
}

func TestRepeatsAndEndsAreCounted(t *testing.T) {
	inWorld(t, func(cfg *ampauth.Config) {
		cfg.Retry.Timeout = time.Second
		cfg.Store = failingStore{}
	}, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 429, RetryAfter: "2"}, ampauthtest.Fault{Route: ampAssets, Delay: time.Hour})
		w.do(w.client.Client, ampAssets)
		w.Revoke()
		w.do(w.client.Client, ampAssets)
		w.Inject(ampauthtest.Fault{Route: ampIssue, AfterIt: true, Reset: true})
		w.do(w.client.Client, ampIssue)
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 429, RetryAfter: "3600"})
		w.do(w.client.Client, ampAssets)

		w.want("ampauth_call_retries_total", map[string]string{"reason=rate_limited": "1", "reason=timeout": "1"})
		w.want("ampauth_call_waits_total", map[string]string{"": "2"})
		w.want("ampauth_call_wait_time_seconds_total", map[string]string{"": fmt.Sprint(w.client.Stats().Waited.Seconds())})
		for _, name := range []string{"ampauth_call_replays_total", "ampauth_login_renewals_total", "ampauth_call_ambiguous_total", "ampauth_call_exhausted_total"} {
			w.want(name, map[string]string{"": "1"})
		}
		if got := w.series("ampauth_store_faults_total", false)[""]; got != fmt.Sprint(w.client.Stats().StoreFaults) {
			w.Errorf("%q faults of the store are exported of %d", got, w.client.Stats().StoreFaults)
		}
	})
}

// A statsOf has one counter that is not 0.
type statsOf struct{ stats ampauth.Stats }

func (s statsOf) Stats() ampauth.Stats { return s.stats }

// So a counter that ampauth gets later is not forgotten here.
func TestEachFieldOfStatsIsOneSeriesOfItsOwn(t *testing.T) {
	seen := make(map[string]string)
	check := func(field string, stats ampauth.Stats) {
		registry, collector := prometheus.NewPedanticRegistry(), new(promampauth.Collector)
		collector.Observe(statsOf{stats})
		registry.MustRegister(collector)
		w := &world{T: t, registry: registry}
		var found []string
		for _, family := range w.gather() {
			for _, m := range family.GetMetric() {
				if value, zero := valueOf(m); !zero {
					found = append(found, family.GetName()+" "+labelsOf(m)+" "+value)
				}
			}
		}
		if len(found) != 1 || !strings.HasSuffix(found[0], " 7") || seen[found[0]] != "" {
			t.Errorf("the 7 of %s is told as %q, which %q is as well", field, found, seen[strings.Join(found, "")])
			return
		}
		seen[found[0]] = field
	}
	var eachField func(path string, index []int, of reflect.Type)
	eachField = func(path string, index []int, of reflect.Type) {
		for i := range of.NumField() {
			at := append(slices.Clone(index), i)
			var stats ampauth.Stats
			switch field := reflect.ValueOf(&stats).Elem().FieldByIndex(at); field.Interface().(type) {
			case uint64:
				field.SetUint(7)
				check(path+of.Field(i).Name, stats)
			case time.Duration:
				field.SetInt(int64(7 * time.Second))
				check(path+of.Field(i).Name, stats)
			default:
				eachField(path+of.Field(i).Name+".", at, field.Type())
			}
		}
	}
	eachField("Stats.", nil, reflect.TypeFor[ampauth.Stats]())
	if len(seen) < 18 {
		t.Errorf("%d fields were looked at", len(seen))
	}
}

func TestReasonsAreNamedAsInEvents(t *testing.T) {
	source, err := os.ReadFile("../event.go")
	if err != nil {
		t.Fatal(err)
	}
	inWorld(t, nil, func(w *world) {
		series := w.series("ampauth_call_retries_total", true)
		for labels := range series {
			word := strings.ReplaceAll(strings.TrimPrefix(labels, "reason="), "_", " ")
			if !strings.Contains(string(source), `"`+word+`"`) {
				w.Errorf("ampauth has no reason %q", word)
			}
		}
		if len(series) != 6 {
			w.Errorf("there are %d reasons", len(series))
		}
	})
}

func TestRemainingLifeIsThatOfTheToken(t *testing.T) {
	const name = "ampauth_token_remaining_seconds"
	inWorld(t, func(cfg *ampauth.Config) { cfg.Lifetime = time.Hour }, func(w *world) {
		w.want(name, map[string]string{})
		if _, err := w.client.Tokens.Token(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.want(name, map[string]string{"": "3600"})
		time.Sleep(61 * time.Minute)
		w.want(name, map[string]string{"": "-60"})
		_ = w.client.Close()
		w.want(name, map[string]string{})
	})
	inWorld(t, func(cfg *ampauth.Config) { cfg.Lifetime = -1 }, func(w *world) {
		w.do(w.client.Client, ampAssets)
		if got := w.series(name, true); len(got) > 0 {
			w.Errorf("a token without an end has %v left", got)
		}
	})
}

func TestTwoClientsInOneRegistry(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.registry = prometheus.NewPedanticRegistry()
		for _, name := range []string{"a", "b"} {
			collector := new(promampauth.Collector)
			client := w.newClient(collector, nil)
			prometheus.WrapRegistererWith(prometheus.Labels{"client": name}, w.registry).MustRegister(collector)
			if _, err := client.Tokens.Token(w.Context()); err != nil {
				w.Fatal(err)
			}
		}
		w.want("ampauth_logins_total", map[string]string{"client=a operation=obtain result=ok": "1", "client=b operation=obtain result=ok": "1"})
		w.want("ampauth_login_duration_seconds", map[string]string{"client=a operation=obtain": "1 in 0 s", "client=b operation=obtain": "1 in 0 s"})
		if left := w.series("ampauth_token_remaining_seconds", true); len(left) != 2 {
			w.Errorf("the tokens' lives are %v", left)
		}
		if problems, err := testutil.GatherAndLint(w.registry); err != nil || len(problems) > 0 {
			w.Error(problems, err)
		}
		if err := w.registry.Register(new(promampauth.Collector)); err == nil {
			w.Error("one without the label went into the same registry")
		}
	})
}

func TestSeveralSourcesOfOneCollectorAreSummedUp(t *testing.T) {
	inWorld(t, func(cfg *ampauth.Config) { cfg.Lifetime = time.Hour }, func(w *world) {
		other := w.newClient(w.collector, func(cfg *ampauth.Config) { cfg.Lifetime = 2 * time.Hour })
		w.collector.Observe((*ampauth.Client)(nil), &ampauth.Client{}, new(ampauth.RetryTransport))
		for _, client := range []*ampauth.Client{other, w.client} {
			if _, err := client.Tokens.Token(w.Context()); err != nil {
				w.Fatal(err)
			}
		}
		w.want("ampauth_logins_total", map[string]string{"operation=obtain result=ok": "2"})
		w.want("ampauth_token_remaining_seconds", map[string]string{"": "3600"})
	})
}

func TestAStackMadeByHandIsObservedByItsParts(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.registry = prometheus.NewPedanticRegistry()
		collector := new(promampauth.Collector)
		w.registry.MustRegister(collector)
		cfg := w.Config()
		cfg.OnEvent = collector.OnEvent
		tokens, err := ampauth.NewTokenManager(cfg)
		if err != nil {
			w.Fatal(err)
		}
		defer tokens.Close()
		retry := &ampauth.RetryTransport{Base: &ampauth.AuthTransport{Source: tokens, Base: w.Transport()}, Retry: cfg.Retry}
		collector.Observe(retry, tokens)
		w.client.Transport = retry
		w.Inject(ampauthtest.Fault{Route: ampAssets, Status: 503, RetryAfter: "0"})
		w.do(w.client.Client, ampAssets)
		w.want("ampauth_call_retries_total", map[string]string{"reason=server_error": "1"})
		w.want("ampauth_logins_total", map[string]string{"operation=obtain result=ok": "1"})
		w.want("ampauth_login_duration_seconds", map[string]string{"operation=obtain": "1 in 0 s"})
		if left := w.series("ampauth_token_remaining_seconds", true)[""]; !strings.HasPrefix(left, "8639") {
			w.Errorf("%s s are left of a day", left)
		}
	})
}

// What goes from nothing to 1 is no increase to an alert.
func TestEverySeriesBeginsAtZero(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(new(promampauth.Collector))
	w := &world{T: t, registry: registry}
	count := 0
	for _, family := range w.gather() {
		for _, m := range family.GetMetric() {
			count++
			if value, zero := valueOf(m); !zero {
				t.Errorf("%s %s begins at %s", family.GetName(), labelsOf(m), value)
			}
		}
	}
	if count != 21 { // 18 of Stats, 3 of logins
		t.Errorf("%d series begin", count)
	}
}

// row is a line of the table of metrics in the package documentation.
var row = regexp.MustCompile(`(?m)^//\t(ampauth_\S+) +(histogram|counter|gauge) +(-|\S+(?:, \S+)*)  `)

func TestDocumentationListsTheMetricsWithTheirLabels(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, match := range row.FindAllStringSubmatch(string(doc), -1) {
		want = append(want, strings.Join(match[1:], " "))
	}
	inWorld(t, nil, func(w *world) {
		w.do(w.client.Client, ampAssets)
		var got []string
		for name, m := range exported(w) {
			got = append(got, name+" "+m.kind+" "+m.labels)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			w.Errorf("there is\n%s\nand in doc.go\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// A described metric has a kind, and labels in alphabetical order.
type described struct{ kind, labels string }

// exported are the metrics of a client that has logged in.
func exported(w *world) map[string]described {
	w.Helper()
	all := make(map[string]described)
	for _, family := range w.gather() {
		var labels []string
		for _, pair := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, pair.GetName())
		}
		slices.Sort(labels)
		text := strings.Join(labels, ", ")
		if text == "" {
			text = "-"
		}
		all[family.GetName()] = described{strings.ToLower(family.GetType().String()), text}
	}
	return all
}

func TestNothingTellsASecretAURLOrAUser(t *testing.T) {
	inWorld(t, func(cfg *ampauth.Config) { cfg.Store = failingStore{} }, func(w *world) {
		w.Inject(ampauthtest.Fault{Route: ampObtain, Status: 500}, ampauthtest.Fault{Route: ampAssets, Status: 503, RetryAfter: "0"},
			ampauthtest.Fault{Route: ampIssue, Reset: true})
		canaries := []string{"issuer", "correct horse", "127.0.0.1", "/api", "assets", "http:", "EOF"}
		for _, route := range []string{ampAssets, ampIssue} {
			w.do(w.client.Client, route)
			token, err := w.client.Tokens.Token(w.Context())
			if err != nil {
				w.Fatal(err)
			}
			_ = token.Value.Expose(func(value []byte) error {
				canaries = append(canaries, string(value))
				return nil
			})
			w.Revoke()
		}
		w.Inject(ampauthtest.Fault{Route: ampObtain, Status: 400})
		_, _ = w.client.Tokens.ForceRefresh(w.Context())
		var everything strings.Builder
		for _, family := range w.gather() {
			fmt.Fprintln(&everything, family)
		}
		for _, canary := range canaries {
			if strings.Contains(everything.String(), canary) {
				w.Errorf("%q is shown:\n%s", canary, everything.String())
			}
		}
	})
}

// Run with -race: Prometheus scrapes while events are told and clients come.
func TestCollectorIsSafeForConcurrentUse(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		collector := new(promampauth.Collector)
		done := make(chan struct{})
		for range 4 {
			go func() {
				defer func() { done <- struct{}{} }()
				for range 50 {
					collector.OnEvent(context.Background(), ampauth.Event{Name: ampauth.EventObtain})
					collector.Observe(w.client)
					_ = testutil.CollectAndCount(collector)
				}
			}()
		}
		for range 4 {
			<-done
		}
		w.registry = prometheus.NewPedanticRegistry()
		w.registry.MustRegister(collector)
		w.want("ampauth_login_duration_seconds", map[string]string{"operation=obtain": "200 in 0 s"})
	})
}
