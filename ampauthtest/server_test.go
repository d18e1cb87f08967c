package ampauthtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// kinds are the ways in which a server is reached.
var kinds = map[string]func(*testing.T, ampauthtest.Options, func(*testing.T, *ampauthtest.Server)){
	"socket": func(t *testing.T, o ampauthtest.Options, test func(*testing.T, *ampauthtest.Server)) {
		test(t, ampauthtest.NewServer(t, o))
	},
	"socket, TLS": func(t *testing.T, o ampauthtest.Options, test func(*testing.T, *ampauthtest.Server)) {
		o.TLS = true
		test(t, ampauthtest.NewServer(t, o))
	},
	"bubble": func(t *testing.T, o ampauthtest.Options, test func(*testing.T, *ampauthtest.Server)) {
		synctest.Test(t, func(t *testing.T) { test(t, ampauthtest.NewServer(t, o)) })
	},
	"bubble, TLS": func(t *testing.T, o ampauthtest.Options, test func(*testing.T, *ampauthtest.Server)) {
		o.TLS = true
		synctest.Test(t, func(t *testing.T) { test(t, ampauthtest.NewServer(t, o)) })
	},
}

func TestServerIsTheSameHoweverItIsReached(t *testing.T) {
	for name, in := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, ampauthtest.Options{}, func(t *testing.T, amp *ampauthtest.Server) {
				client := amp.Client()
				amp.Inject(ampauthtest.Fault{Route: "GET /assets", Status: 503})
				if status := get(t, client, amp.URL+"/assets"); status != 200 {
					t.Errorf("GET: %d", status)
				}
				amp.Inject(ampauthtest.Fault{Route: issue, AfterIt: true, Reset: true})
				if err := Issue(t.Context(), client, amp.URL, "Bond"); !errors.Is(err, ampauth.ErrAmbiguous) {
					t.Errorf("%v, want one that Is ErrAmbiguous", err)
				}
				amp.RefreshElsewhere()
				if err := Issue(t.Context(), client, amp.URL, "Share"); err != nil {
					t.Error(err)
				}
				amp.Revoke()
				if err := Issue(t.Context(), client, amp.URL, "Note"); err != nil {
					t.Error(err)
				}
				if n, logins, all := len(amp.Effects()), amp.Count("POST /user/obtain_token"), amp.Count(""); n != 3 || logins != 3 || all != 10 {
					t.Errorf("%d effects, %d logins, %d requests; want 3, 3 and 10", n, logins, all)
				}
			})
		})
	}
}

func get(t *testing.T, client *ampauth.Client, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// In a bubble waits take their exact time, and none of the machine's.
func TestBubbleHasItsOwnTime(t *testing.T) {
	for _, options := range []ampauthtest.Options{{}, {TLS: true}} {
		synctest.Test(t, func(t *testing.T) {
			options.Lifetime = time.Hour
			amp := ampauthtest.NewServer(t, options)
			amp.Inject(
				ampauthtest.Fault{Route: "POST /user/obtain_token", Delay: 3 * time.Second},
				ampauthtest.Fault{Route: issue, Delay: 2 * time.Second, AfterIt: true},
			)
			cfg := amp.Config()
			cfg.Lifetime = time.Hour
			client, err := ampauth.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			start := time.Now()
			if err := Issue(t.Context(), client, amp.URL, "Bond"); err != nil || time.Since(start) != 5*time.Second {
				t.Errorf("%v after %v, want none after 5s", err, time.Since(start))
			}
			if e := amp.Effects(); len(e) != 1 || e[0].Time.Sub(start) != 3*time.Second {
				t.Errorf("effects %v, want one after 3s", e)
			}
			for range 48 { // refreshed on the way, which is a mutation too, and not twice
				time.Sleep(28 * time.Minute)
				if status := get(t, client, amp.URL+"/assets"); status != 200 {
					t.Errorf("after %v: %d", time.Since(start), status)
				}
			}
			if n := amp.Count("GET /user/refresh-token"); n == 0 {
				t.Error("no refresh in a day")
			}
		})
	}
}

// A test that ends in the middle of things ends at once: what is under way is cut off,
// and a goroutine that stayed would end the bubble with a panic.
func TestEndCutsOffWhatIsUnderWay(t *testing.T) {
	for name, in := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, ampauthtest.Options{}, func(t *testing.T, outer *ampauthtest.Server) {
				r := new(recorder)
				amp := ampauthtest.NewServer(r, ampauthtest.Options{TLS: outer.URL[:5] == "https"})
				amp.Inject(ampauthtest.Fault{Route: "GET /assets", Delay: time.Hour, Times: -1})
				cfg := amp.Config()
				cfg.Retry = ampauth.RetryConfig{MaxAttempts: 1, Timeout: -1}
				client, err := ampauth.NewClient(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				var calls sync.WaitGroup
				for range 3 {
					calls.Go(func() {
						resp, err := client.Get(amp.URL + "/assets")
						if err == nil {
							resp.Body.Close()
							t.Error("an answer")
						}
					})
				}
				awaitRequests(amp, "GET /assets", 3)
				// In the middle of an upload, too.
				reader, writer := io.Pipe()
				calls.Go(func() {
					req, _ := http.NewRequest("POST", amp.URL+"/assets/issue", reader)
					if resp, err := amp.Transport().RoundTrip(req); err == nil {
						resp.Body.Close()
						t.Error("an answer")
					}
				})
				awaitRequests(amp, issue, 1)
				if errors := r.end(); len(errors) > 0 {
					t.Errorf("errors %q", errors)
				}
				writer.Close()
				calls.Wait()
			})
		})
	}
}

func TestHandlerServesAnyListener(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	mine := httptest.NewServer(amp)
	defer mine.Close()
	cfg := amp.Config()
	cfg.BaseURL, cfg.HTTPClient = mine.URL+"/api", mine.Client()
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := Issue(t.Context(), client, cfg.BaseURL, "Bond"); err != nil {
		t.Fatal(err)
	}
	if n := len(amp.Effects()); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func TestHandlerBreaksConnectionsAfterTheEnd(t *testing.T) {
	r, amp := record(t, ampauthtest.Options{})
	mine := httptest.NewServer(amp)
	defer mine.Close()
	r.end()
	if resp, err := mine.Client().Get(mine.URL + "/api/info"); err == nil {
		resp.Body.Close()
		t.Errorf("%s, want an error", resp.Status)
	}
}

func TestServersShareNothing(t *testing.T) {
	for n := range 20 {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			amp := ampauthtest.NewServer(t, ampauthtest.Options{})
			client := amp.Client()
			for i := range n {
				if err := Issue(t.Context(), client, amp.URL, strconv.Itoa(i)); err != nil {
					t.Fatal(err)
				}
			}
			if got := len(amp.Effects()); got != n {
				t.Errorf("%d effects, want %d", got, n)
			}
		})
	}
}

// Whoever has a production environment in the shell runs tests, too.
func TestEnvironmentHasNoSay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AMP_TOKEN_DIR": dir, "AMP_TOKEN_PERSISTENCE": "true", "AMP_API_BASE_URL": "https://amp.invalid/api",
		"AMP_USERNAME": "somebody", "AMP_PASSWORD": "else", "API_RETRY_MAX_ATTEMPTS": "nonsense",
		"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "XDG_CACHE_HOME": dir, "HOME": dir,
	} {
		t.Setenv(name, value)
	}
	amp := ampauthtest.NewServer(t, ampauthtest.Options{TLS: true})
	if err := Issue(t.Context(), amp.Client(), amp.URL, "Bond"); err != nil {
		t.Error(err)
	}
	if amp.Transport().Proxy != nil || amp.Config().Store != nil {
		t.Error("a proxy or a store")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("files %v, %v", entries, err)
	}
}

// A program that changes its password is tested with the rest of the test's clients.
func TestConfigFollowsAChangeOfThePassword(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	if status, answer := send(t, amp, "POST", "/user/change-password", `{"password":"another one"}`); status != 200 {
		t.Fatal(status, answer)
	}
	if err := Issue(t.Context(), amp.Client(), amp.URL, "Bond"); err != nil {
		t.Error(err)
	}
}

func TestOptionsShapeTheServer(t *testing.T) {
	unauthorized := func(t *testing.T, amp *ampauthtest.Server) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", amp.URL+"/assets", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := amp.Transport().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, test := range []struct {
		options ampauthtest.Options
		want    [2]int // without a token; of a refresh
	}{
		{ampauthtest.Options{}, [2]int{401, 200}},
		{ampauthtest.Options{Forbidden: true}, [2]int{403, 200}},
		{ampauthtest.Options{NoRefresh: true}, [2]int{401, 404}},
	} {
		amp := ampauthtest.NewServer(t, test.options)
		refresh, _ := send(t, amp, "GET", "/user/refresh-token", "")
		if got := [2]int{unauthorized(t, amp), refresh}; got != test.want {
			t.Errorf("%+v: %v, want %v", test.options, got, test.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		amp := ampauthtest.NewServer(t, ampauthtest.Options{Lifetime: time.Minute})
		client := amp.Client() // takes it for a day
		for range 3 {
			get(t, client, amp.URL+"/assets")
			time.Sleep(time.Minute)
		}
		if n := amp.Count("POST /user/obtain_token"); n != 3 {
			t.Errorf("%d logins, want 3", n)
		}
	})
}

// What Find of a caller reads: the assets that were issued, whether or not the client
// heard of it.
func TestWhatWasIssuedIsListed(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: issue, AfterIt: true, Reset: true}, ampauthtest.Fault{Route: issue, Reset: true})
	client := amp.Client()
	for _, name := range []string{"Performed", "Not"} {
		if err := Issue(t.Context(), client, amp.URL, name); !errors.Is(err, ampauth.ErrAmbiguous) {
			t.Fatalf("%v, want one that Is ErrAmbiguous", err)
		}
	}
	_, answer := send(t, amp, "GET", "/assets", "")
	var assets []struct {
		Name string `json:"name"`
		UUID string `json:"asset_uuid"`
	}
	if err := json.Unmarshal([]byte(answer), &assets); err != nil || len(assets) != 1 || assets[0].Name != "Performed" {
		t.Fatalf("listed: %s, %v", answer, err)
	}
	if status, one := send(t, amp, "GET", "/assets/"+assets[0].UUID, ""); status != 200 || "["+one+"]" != answer {
		t.Errorf("read: %d %s", status, one)
	}
}
