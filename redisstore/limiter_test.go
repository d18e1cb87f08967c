//go:build unix

package redisstore_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

const (
	limitedEnv  = "REDISSTORE_LIMITED" // the address of the server that a process shares its limit over
	askedHeader = "Limiter-Asked"      // when the limiter was asked that let the request pass

	limitedProcesses = 8
	requestsOfEach   = 6
)

var limit = redis_rate.Limit{Rate: 10, Burst: 5, Period: time.Second}

type askedKey struct{}

// A notedLimiter notes when Redis is asked, in the request's context.
type notedLimiter struct{ *redis.Client }

func (n notedLimiter) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if asked, ok := ctx.Value(askedKey{}).(*time.Time); ok {
		*asked = time.Now()
	}
	return n.Client.EvalSha(ctx, sha, keys, args...)
}

// A roundTripper tells the server of it.
type roundTripper struct{ base http.RoundTripper }

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if asked, ok := req.Context().Value(askedKey{}).(*time.Time); ok {
		req = req.Clone(req.Context())
		req.Header.Set(askedHeader, strconv.FormatInt(asked.UnixNano(), 10))
	}
	return r.base.RoundTrip(req)
}

// limitedMain is a process that makes its requests as fast as the limiter lets it, if this
// is one.
func limitedMain() {
	address := os.Getenv(limitedEnv)
	if address == "" {
		return
	}
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		panic(err)
	}
	cfg.HTTPClient = &http.Client{Transport: roundTripper{http.DefaultTransport}}
	cfg.Limiter = &SharedLimiter{
		Redis: redis_rate.NewLimiter(notedLimiter{redis.NewClient(&redis.Options{Addr: address})}),
		Key:   "test",
		Limit: limit,
		Alone: rate.NewLimiter(0, 0), // lets nothing pass
	}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		panic(err)
	}
	if _, err := client.Tokens.Token(context.Background()); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	bufio.NewScanner(os.Stdin).Scan()
	for range requestsOfEach {
		req, err := http.NewRequestWithContext(context.WithValue(context.Background(), askedKey{}, new(time.Time)), http.MethodGet, cfg.URL("/assets"), nil)
		if err != nil {
			panic(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			panic(err)
		}
		_ = resp.Body.Close()
	}
	os.Exit(0)
}

// TestProcessesShareALimit has the server count. Redis let a request pass between the moment
// it was asked and the request's arrival: those for which both are within a second are no more
// than the limit and its burst, however slow the machine is.
func TestProcessesShareALimit(t *testing.T) {
	t.Parallel()
	redisServer := newServer(t)
	type passage struct{ asked, arrived time.Time }
	var (
		mu     sync.Mutex // guards passed
		passed []passage
	)
	amp := fakeamp.New(fakeamp.Config{Users: map[string]string{"issuer": "correct horse battery"}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked, err := strconv.ParseInt(r.Header.Get(askedHeader), 10, 64); err == nil {
			mu.Lock()
			passed = append(passed, passage{time.Unix(0, asked), time.Now()})
			mu.Unlock()
		}
		amp.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { server.Close(); amp.Close() })

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var ready []func() error
	for range limitedProcesses {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), limitedEnv+"="+redisServer.Address(), "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0",
			"AMP_API_BASE_URL="+server.URL+"/api", "AMP_USERNAME=issuer", "AMP_PASSWORD=correct horse battery",
			"AMP_PASSWORD_FILE=", "AMP_TOKEN_DIR=", "AMP_TOKEN_PERSISTENCE=")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if line, _ := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(line, "ready") {
			t.Fatalf("a process said %q", line)
		}
		ready = append(ready, func() error { _ = in.Close(); return cmd.Wait() })
	}
	began := time.Now()
	var all sync.WaitGroup
	for _, begin := range ready {
		all.Go(func() {
			if err := begin(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	took := time.Since(began)

	mu.Lock()
	defer mu.Unlock()
	most, arrived := 0, 0 // in any second: surely passed, and arrived
	for _, first := range passed {
		surely, came := 0, 0
		for _, p := range passed {
			if !p.asked.Before(first.asked) && p.arrived.Sub(first.asked) <= time.Second {
				surely++
			}
			if d := p.arrived.Sub(first.arrived); d >= 0 && d < time.Second {
				came++
			}
		}
		most, arrived = max(most, surely), max(arrived, came)
	}
	total, allowed := limitedProcesses*requestsOfEach, limit.Rate+limit.Burst
	t.Logf("%d processes, %d requests in %.1f s; in any second at most %d arrived, and at most %d passed, of the %d allowed",
		limitedProcesses, len(passed), took.Seconds(), arrived, most, allowed)
	if len(passed) != total {
		t.Errorf("%d requests arrived, want %d", len(passed), total)
	}
	if most > allowed {
		t.Errorf("%d passed within a second, want at most %d", most, allowed)
	}
	if least := time.Duration(total-limit.Burst) * limit.Period / time.Duration(limit.Rate); took < least {
		t.Errorf("%d requests took %v, want at least %v", total, took, least)
	}
}
