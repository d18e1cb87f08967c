package ampauth_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// The budgets of allocations. They are of the middleware alone: what a request
// costs over a static transport is subtracted.

// reusableBody can be read and closed again and again without allocating.
type reusableBody struct{}

func (reusableBody) Read(p []byte) (int, error) { return copy(p, "{}"), nil }
func (reusableBody) Close() error               { return nil }

func newStaticTransport() *staticTransport {
	return &staticTransport{http.Response{StatusCode: 200, Header: http.Header{}, Body: reusableBody{}, ContentLength: 2}}
}

// eightFields is a request whose header map is full.
func eightFields(tb testing.TB) *http.Request {
	req := sevenFields(tb, "GET", "/assets", nil)
	req.Header.Set("X-Eighth", "value")
	return req
}

type cost struct{ allocs, bytes int64 }

func costOf(tb testing.TB, rt http.RoundTripper, req *http.Request) cost {
	tb.Helper()
	run := func() {
		resp, err := rt.RoundTrip(req)
		if err != nil {
			tb.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	const runs = 2000
	allocs := testing.AllocsPerRun(runs, run)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		run()
	}
	runtime.ReadMemStats(&after)
	return cost{int64(allocs), int64(after.TotalAlloc-before.TotalAlloc) / runs}
}

func TestAllocationBudgets(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	noTimeout := ampauth.RetryConfig{Timeout: -1, MutationTimeout: -1}
	cancellable, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := bytes.Repeat([]byte("x"), 64<<10)
	for _, test := range []struct {
		name   string
		stack  func(http.RoundTripper) http.RoundTripper
		req    *http.Request
		budget cost
	}{
		{"AuthTransport alone", func(b http.RoundTripper) http.RoundTripper { return authOver(b) },
			sevenFields(t, "GET", "/assets", nil), cost{3, 740}},
		{"AuthTransport alone, eight fields", func(b http.RoundTripper) http.RoundTripper { return authOver(b) },
			eightFields(t), cost{5, 1130}},
		{"whole stack, timeout off", func(b http.RoundTripper) http.RoundTripper {
			return &ampauth.RetryTransport{Base: authOver(b), Retry: noTimeout}
		}, sevenFields(t, "GET", "/assets", nil), cost{3, 830}},
		{"whole stack, per-attempt timeout", func(b http.RoundTripper) http.RoundTripper {
			return &ampauth.RetryTransport{Base: authOver(b)}
		}, sevenFields(t, "GET", "/assets", nil), cost{7, 1055}},
		{"whole stack, cancellable caller", func(b http.RoundTripper) http.RoundTripper {
			return &ampauth.RetryTransport{Base: authOver(b)}
		}, sevenFields(t, "GET", "/assets", nil).WithContext(cancellable), cost{7, 1055}},
		{"whole stack, POST of 64 KiB", func(b http.RoundTripper) http.RoundTripper {
			return &ampauth.RetryTransport{Base: authOver(b)}
		}, sevenFields(t, "POST", "/assets/issue", body), cost{12, 1280}},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := newStaticTransport()
			bare := costOf(t, base, test.req)
			got := costOf(t, test.stack(base), test.req)
			added := cost{got.allocs - bare.allocs, got.bytes - bare.bytes}
			t.Logf("added: %d allocations, %d bytes", added.allocs, added.bytes)
			if added.allocs > test.budget.allocs || added.bytes > test.budget.bytes {
				t.Errorf("added %+v, the budget is %+v", added, test.budget)
			}
		})
	}
}

// newFreshManager returns a manager that holds a fresh token.
func newFreshManager(tb testing.TB) *ampauth.TokenManager {
	tb.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"token":"0123456789abcdef0123456789abcdef01234567"}`))
	}))
	tb.Cleanup(server.Close)
	m, err := ampauth.NewTokenManager(ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	if _, err := m.Token(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestFreshTokenIsReadWithoutAllocating(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := newFreshManager(t)
	if n := testing.AllocsPerRun(1000, func() { _, _ = m.Token(context.Background()) }); n != 0 {
		t.Errorf("Token allocates %v times", n)
	}
}

func BenchmarkTokenFresh(b *testing.B) {
	m := newFreshManager(b)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = m.Token(context.Background())
	}
}

func BenchmarkTokenFreshParallel(b *testing.B) {
	m := newFreshManager(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = m.Token(context.Background())
		}
	})
}

// BenchmarkClock is what a read of a fresh token is measured against.
func BenchmarkClock(b *testing.B) {
	var now int64
	for b.Loop() {
		now = time.Now().UnixNano()
	}
	_ = now
}

func BenchmarkRoundTrip(b *testing.B) {
	get := sevenFields(b, "GET", "/assets", nil)
	post := sevenFields(b, "POST", "/assets/issue", make([]byte, 64<<10))
	base := newStaticTransport()
	for _, bench := range []struct {
		name string
		rt   http.RoundTripper
		req  *http.Request
	}{
		{"bare", base, get},
		{"auth", authOver(base), get},
		{"stack", &ampauth.RetryTransport{Base: authOver(base), Retry: ampauth.RetryConfig{Timeout: -1}}, get},
		{"stack_timeout", &ampauth.RetryTransport{Base: authOver(base)}, get},
		{"stack_post", &ampauth.RetryTransport{Base: authOver(base)}, post},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp, err := bench.rt.RoundTrip(bench.req)
				if err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}
