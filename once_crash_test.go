//go:build unix

package ampauth_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// onceCrashSettle is the Settle of a process that is killed.
const onceCrashSettle = 50 * time.Millisecond

// firstEnv has the number of the first issuance of a process, generationEnv that of the
// process.
const (
	firstEnv        = "AMPAUTH_TEST_FIRST"
	generationEnv   = "AMPAUTH_TEST_GENERATION"
	generationField = "X-Generation"
)

// toldFile is what a process tells its parent through.
const toldFile = 3

// TestOnceProcess issues one asset after the other, and tells of each. The first it may have
// issued before.
func TestOnceProcess(t *testing.T) {
	if os.Getenv(childEnv) != "once" {
		t.Skip("runs in a child process of the test below")
	}
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	cfg.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		req.Header.Set(generationField, os.Getenv(generationEnv))
		return http.DefaultTransport.RoundTrip(req)
	})}
	client := newTestClient(t, cfg)
	first, err := strconv.Atoi(os.Getenv(firstEnv))
	if err != nil {
		t.Fatal(err)
	}
	told := os.NewFile(toldFile, "told") // no goroutine stands between, as before os.Stdout here, that could be killed with a line
	for n := first; ; n++ {
		m := issuing(client.Client, cfg.BaseURL, fmt.Sprint("T", n))
		m.Settle = onceCrashSettle
		// It gives up nothing, however slow this machine is.
		for m.FindFirst = n == first; ; m.FindFirst = true {
			if _, err := ampauth.Once(t.Context(), ampauth.RetryConfig{BaseDelay: time.Millisecond, MaxDelay: 20 * time.Millisecond, Budget: -1}, m); err == nil {
				break
			}
		}
		if _, err := fmt.Fprintln(told, "issued", n); err != nil {
			t.Fatal(err)
		}
	}
}

// A lateAMP performs some issuances later than it cuts their connection: by up to Settle, as
// far as anybody can see. It looks at what is due whenever it is asked something, so that
// nothing depends on how fast this machine is.
type lateAMP struct {
	*fakeamp.Server

	mu      sync.Mutex  // guards what follows
	began   []time.Time // each process, or a little earlier: the last one runs
	arrived int         // issuances
	pending []lateIssuance
}

type lateIssuance struct {
	generation int
	due        time.Time
	perform    func()
}

func (a *lateAMP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	generation, _ := strconv.Atoi(r.Header.Get(generationField))
	a.performDue(time.Now())
	if r.Method != "POST" || !strings.HasSuffix(r.URL.Path, "/issue") {
		a.Server.ServeHTTP(w, r)
		return
	}
	a.arrived++
	if a.isSettled(generation, time.Now()) {
		panic(http.ErrAbortHandler) // what is on its way for longer than Settle is never performed
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r = r.WithContext(context.Background())
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	switch perform := func() { a.Server.ServeHTTP(httptest.NewRecorder(), r) }; rand.IntN(4) {
	case 0:
		a.Server.ServeHTTP(w, r)
	case 1:
		perform()
		panic(http.ErrAbortHandler)
	case 2:
		panic(http.ErrAbortHandler)
	default:
		a.pending = append(a.pending, lateIssuance{generation, time.Now().Add(rand.N(onceCrashSettle)), perform})
		panic(http.ErrAbortHandler)
	}
}

// isSettled reports whether the process after that of a generation may rely on what has been
// performed by now. a.mu is held.
func (a *lateAMP) isSettled(generation int, now time.Time) bool {
	return generation+1 < len(a.began) && now.After(a.began[generation+1].Add(onceCrashSettle))
}

// performDue performs what is due, and what somebody may rely on. a.mu is held.
func (a *lateAMP) performDue(now time.Time) {
	var left []lateIssuance
	for _, p := range a.pending {
		if now.Before(p.due) && !a.isSettled(p.generation, now) {
			left = append(left, p)
			continue
		}
		p.perform()
	}
	a.pending = left
}

// start notes that another process begins.
func (a *lateAMP) start() (generation int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.began = append(a.began, time.Now())
	return len(a.began) - 1
}

// Processes are killed at any point of it, and others go on at once with FindFirst.
func TestOnceSurvivesBeingKilled(t *testing.T) {
	kills, lanes := 200, 8
	if testing.Short() {
		kills, lanes = 10, 2
	}
	var killed, issued, again atomic.Int32
	var running sync.WaitGroup
	for range lanes {
		running.Go(func() {
			amp := &lateAMP{Server: fakeamp.New(fakeamp.Config{Users: map[string]string{"issuer": canaryPassword}})}
			server := httptest.NewServer(amp)
			defer server.Close()
			next := 0
			for int(killed.Add(1)) <= kills {
				n, err := amp.runAndKill(t, server.URL, next)
				if err != nil {
					t.Error(err)
					return
				}
				next += n
			}
			amp.mu.Lock()
			amp.performDue(time.Now().Add(time.Hour))
			amp.mu.Unlock()
			for n := range next {
				if times := onceTimes(amp.Server, fmt.Sprint("T", n)); times != 1 {
					t.Errorf("issuance %d was performed %d times", n, times)
				}
			}
			for id, times := range amp.Repeated() {
				t.Errorf("issuance %s was performed %d times", id, times)
			}
			issued.Add(int32(next))
			again.Add(int32(amp.arrived - next))
		})
	}
	running.Wait()
	t.Logf("%d processes killed, %d issuances, which took %d requests more", kills, issued.Load(), again.Load())
	if issued.Load() < 5 || again.Load() == 0 {
		t.Error("the run proves nothing")
	}
}

// runAndKill runs a process that issues from first on, kills it after a while, and returns
// how many it told of.
func (a *lateAMP) runAndKill(t *testing.T, url string, first int) (issued int, err error) {
	cmd := childCommand(context.Background(), t, "once", "-test.run=^TestOnceProcess$")
	cmd.Env = append(cmd.Env,
		"AMP_API_BASE_URL="+url+"/api", "AMP_USERNAME=issuer", "AMP_PASSWORD="+canaryPassword, "AMP_PASSWORD_FILE=", "AMP_TOKEN_DIR=", "AMP_TOKEN_PERSISTENCE=",
		fmt.Sprint(firstEnv, "=", first), fmt.Sprint(generationEnv, "=", a.start()))
	cmd.Stderr = os.Stderr
	out, told, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd.ExtraFiles = []*os.File{toldFile - 3: told}
	err = cmd.Start()
	told.Close()
	if err != nil {
		return 0, err
	}
	// From before it has begun to after it has issued something.
	timer := time.AfterFunc(rand.N(8*onceCrashSettle), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		issued++
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return issued, fmt.Errorf("a process ended with status %d", code)
	}
	return issued, nil
}
