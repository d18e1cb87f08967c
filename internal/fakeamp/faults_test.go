package fakeamp_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// issue sends POST /assets/issue with an operation id.
func (c *client) issue(id string) (reply, error) {
	c.t.Helper()
	return c.try("POST", "/assets/issue", `{"name":"Bond"}`, "X-Operation-Id", id)
}

func TestFaultsMatchInOrder(t *testing.T) {
	fake, c := startLoggedIn(t)
	fake.Inject(
		fakeamp.Fault{Route: "GET /assets/{assetUuid}/balance", Status: 500, Times: 2, Skip: 1},
		fakeamp.Fault{Route: "/assets/{assetUuid}/balance", Status: 502},
		fakeamp.Fault{Route: "POST /assets/{assetUuid}/balance", Status: 503},
	)
	var got []int
	for range 5 {
		got = append(got, c.do("GET", "/assets/"+someAsset+"/balance", "").status)
	}
	// The first one lets a request pass, which the second one meets.
	if want := []int{502, 500, 500, 200, 200}; !slices.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
	if got, want := fake.Injected(), (map[string]int{"500": 2, "502": 1}); !maps.Equal(got, want) {
		t.Errorf("Injected = %v, want %v", got, want)
	}
	if n := fake.Count("GET /assets/{assetUuid}/balance"); n != 5 {
		t.Errorf("Count = %d, want 5: faults count", n)
	}
}

func TestFaultForEverAndForAnyRoute(t *testing.T) {
	fake, c := startLoggedIn(t)
	fake.Inject(fakeamp.Fault{Name: "outage", Times: -1, Status: 503})
	for _, path := range []string{"/info", "/assets", "/no/such/path"} {
		c.do("GET", path, "").want(t, 503, "")
	}
	if n := fake.Injected()["outage"]; n != 3 {
		t.Errorf("applied %d times, want 3", n)
	}
	fake.ClearFaults()
	c.do("GET", "/info", "").want(t, 200, "")
}

func TestStatusBeforeTheEffectTakesItsPlace(t *testing.T) {
	for _, when := range []fakeamp.When{fakeamp.Before, fakeamp.After} {
		fake, c := startLoggedIn(t)
		fake.Inject(fakeamp.Fault{Name: "f", Route: issueRoute, When: when, Status: 503})
		got, err := c.issue("op")
		if err != nil {
			t.Fatal(err)
		}
		got.want(t, 503, `{"detail":"Service temporarily unavailable, try again later."}`)
		effects := fake.Effects()
		if when == fakeamp.Before && len(effects) != 0 {
			t.Errorf("before: effects %v, want none", effects)
		}
		if when == fakeamp.After && (len(effects) != 1 || effects[0].Fault != "f" || effects[0].ID != "op") {
			t.Errorf("after: effects %v, want one with the fault's name", effects)
		}
	}
}

func TestStatusBodies(t *testing.T) {
	tests := []struct {
		name  string
		fault fakeamp.Fault
		want  string
	}{
		{"400", fakeamp.Fault{Status: 400}, `{"detail":"Malformed request."}`},
		{"401", fakeamp.Fault{Status: 401}, `{"detail":"Invalid token."}`},
		{"403", fakeamp.Fault{Status: 403}, `{"detail":"You do not have permission to perform this action."}`},
		{"404", fakeamp.Fault{Status: 404}, `{"detail":"Not found."}`},
		{"405", fakeamp.Fault{Status: 405}, `{"detail":"Method \"GET\" not allowed."}`},
		{"429", fakeamp.Fault{Status: 429}, `{"detail":"Request was throttled."}`},
		{"429 with seconds", fakeamp.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}}, `{"detail":"Request was throttled. Expected available in 7 seconds."}`},
		{"429 with one second", fakeamp.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}}, `{"detail":"Request was throttled. Expected available in 1 second."}`},
		{"429 with a date", fakeamp.Fault{Status: 429, Header: http.Header{"Retry-After": {"Sun, 06 Nov 1994 08:49:37 GMT"}}}, `{"detail":"Request was throttled."}`},
		{"500", fakeamp.Fault{Status: 500}, `{"detail":"A server error occurred."}`},
		{"502", fakeamp.Fault{Status: 502}, `{"detail":"Bad Gateway."}`},
		{"200", fakeamp.Fault{Status: 200}, `{}`},
		{"204", fakeamp.Fault{Status: 204}, ""},
		{"body", fakeamp.Fault{Status: 400, Body: `{"Error":"already registered"}`}, `{"Error":"already registered"}`},
		{"body with AMP's status", fakeamp.Fault{Body: `{"torn":`}, `{"torn":`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake, c := start(t, fakeamp.Config{})
			fake.Inject(tt.fault)
			got := c.do("GET", "/info", "")
			want := tt.fault.Status
			if want == 0 {
				want = 200
			}
			if got.status != want || got.body != tt.want {
				t.Errorf("got %d %s, want %d %s", got.status, got.body, want, tt.want)
			}
		})
	}
}

func TestHTMLIsWhatAProxySends(t *testing.T) {
	fake, c := start(t, fakeamp.Config{})
	fake.Inject(fakeamp.Fault{Status: 502, HTML: true})
	got := c.do("GET", "/info", "")
	if got.status != 502 || got.header.Get("Content-Type") != "text/html" || !strings.Contains(got.body, "<h1>502 Bad Gateway</h1>") {
		t.Errorf("got %d, %q, %s", got.status, got.header.Get("Content-Type"), got.body)
	}
}

func TestFaultHeadersReplaceThoseOfTheAnswer(t *testing.T) {
	fake, c := start(t, fakeamp.Config{})
	header := http.Header{"retry-after": {"1", "2"}, "Vary": nil}
	fake.Inject(fakeamp.Fault{Route: "GET /info", Header: header})
	//lint:ignore SA1008 the spelling is the point
	header["retry-after"][0] = "changed later"
	got := c.do("GET", "/info", "")
	if v := got.header.Values("Retry-After"); !slices.Equal(v, []string{"1", "2"}) {
		t.Errorf("Retry-After %q, want both values", v)
	}
	if v, ok := got.header["Vary"]; ok {
		t.Errorf("Vary %q, want it suppressed", v)
	}
	got.want(t, 200, `{"version":"0.1.12","notes":""}`)
	if n := fake.Injected()["altered answer"]; n != 1 {
		t.Errorf("Injected = %v", fake.Injected())
	}
}

// Without an answer the client cannot tell whether the effect happened; the
// log can.
func TestConnectionEndsWithoutAnAnswer(t *testing.T) {
	tests := []struct {
		name   string
		action fakeamp.Action
		want   error
	}{
		{"reset", fakeamp.Reset, syscall.ECONNRESET},
		{"close", fakeamp.Close, io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake, c := startLoggedIn(t)
			fake.Inject(
				fakeamp.Fault{Route: issueRoute, Do: tt.action},
				fakeamp.Fault{Route: issueRoute, Do: tt.action, When: fakeamp.After},
			)
			for _, id := range []string{"before", "after"} {
				if got, err := c.issue(id); !errors.Is(err, tt.want) {
					t.Errorf("%s the effect: got %v, %v; want %v", id, got.status, err, tt.want)
				}
			}
			effects := fake.Effects()
			if len(effects) != 1 || effects[0].ID != "after" || effects[0].Fault != tt.name+" after" {
				t.Errorf("effects %v, want that of the second request only", effects)
			}
		})
	}
}

func TestResetOverTLSSaysNoGoodbye(t *testing.T) {
	fake := fakeamp.New(fakeamp.Config{})
	server := httptest.NewTLSServer(fake)
	defer server.Close()
	c := newClient(t, server.Client().Transport, server.URL)
	fake.Inject(fakeamp.Fault{Do: fakeamp.Reset})
	if _, err := c.try("POST", "/user/obtain_token", login); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want ECONNRESET", err)
	}
}

// Over HTTP/2 the same faults end the stream, not the connection.
func TestFaultsOverHTTP2(t *testing.T) {
	fake := fakeamp.New(fakeamp.Config{})
	server := httptest.NewUnstartedServer(fake)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	defer fake.Close()
	c := newClient(t, server.Client().Transport, server.URL)
	c.token = fake.Rotate("issuer")
	for _, action := range []fakeamp.Action{fakeamp.Reset, fakeamp.Close, fakeamp.CutBody} {
		fake.Inject(fakeamp.Fault{Route: issueRoute, When: fakeamp.After, Do: action})
		if got, err := c.issue("op-" + strconv.Itoa(int(action))); err == nil {
			t.Errorf("action %d: got %d, want an error", action, got.status)
		}
	}
	fake.Inject(fakeamp.Fault{Route: issueRoute, Status: 429, Do: fakeamp.EarlyAnswer})
	if got, err := c.issue("early"); err != nil || got.status != 429 {
		t.Errorf("early answer: got %d, %v", got.status, err)
	}
	if got := len(fake.Effects()); got != 3 || len(fake.Repeated()) > 0 {
		t.Errorf("%d effects, repeated %v; want 3, none", got, fake.Repeated())
	}
}

func TestBodyIsCut(t *testing.T) {
	fake, c := startLoggedIn(t)
	fake.Inject(fakeamp.Fault{Route: issueRoute, Do: fakeamp.CutBody})
	got, err := c.issue("op")
	length, _ := strconv.Atoi(got.header.Get("Content-Length"))
	if got.status != 201 || !errors.Is(err, io.ErrUnexpectedEOF) || len(got.body) != length/2 || length == 0 {
		t.Errorf("got %d, %d of %d bytes, %v; want 201, half the body, io.ErrUnexpectedEOF", got.status, len(got.body), length, err)
	}
	if n := len(fake.Effects()); n != 1 {
		t.Errorf("%d effects, want 1: AMP's own answer was cut", n)
	}
}

func TestDelayIsExact(t *testing.T) {
	inBubble(t, fakeamp.Config{}, func(t *testing.T, fake *fakeamp.Server, c *client) {
		fake.Inject(fakeamp.Fault{Route: obtainRoute, Delay: 2 * time.Second})
		start := time.Now()
		c.do("POST", "/user/obtain_token", login).want(t, 200, "")
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("took %v, want 2s", got)
		}
	})
}

func TestClientThatLeavesEndsTheDelay(t *testing.T) {
	for _, when := range []fakeamp.When{fakeamp.Before, fakeamp.After} {
		inBubble(t, fakeamp.Config{}, func(t *testing.T, fake *fakeamp.Server, c *client) {
			c.token = fake.Rotate("issuer")
			c.http.Timeout = time.Second
			fake.Inject(fakeamp.Fault{Route: issueRoute, When: when, Delay: time.Hour})
			if _, err := c.issue("op"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want a timeout", err)
			}
			synctest.Wait()
			if n := len(fake.Effects()); n != int(when) {
				t.Errorf("%d effects with When %d, want none before and one after", n, when)
			}
		})
	}
}

func TestStallsLastUntilTheClientLeaves(t *testing.T) {
	for _, action := range []fakeamp.Action{fakeamp.StallHeaders, fakeamp.StallBody} {
		inBubble(t, fakeamp.Config{}, func(t *testing.T, fake *fakeamp.Server, c *client) {
			c.token = fake.Rotate("issuer")
			c.http.Timeout = time.Minute
			fake.Inject(fakeamp.Fault{Route: issueRoute, When: fakeamp.After, Do: action})
			start := time.Now()
			got, err := c.issue("op")
			if elapsed := time.Since(start); elapsed != time.Minute || err == nil {
				t.Errorf("action %d: error %v after %v, want one after 1m", action, err, elapsed)
			}
			if hasHeaders := got.status == 201 && got.body != ""; hasHeaders != (action == fakeamp.StallBody) {
				t.Errorf("action %d: status %d, body %q", action, got.status, got.body)
			}
			if n := len(fake.Effects()); n != 1 {
				t.Errorf("action %d: %d effects, want 1", action, n)
			}
		})
	}
}

func TestCloseReleasesStalledRequests(t *testing.T) {
	for _, fault := range []fakeamp.Fault{
		{Do: fakeamp.StallHeaders}, {Do: fakeamp.StallBody}, {Do: fakeamp.EndlessBody}, {Delay: time.Hour},
	} {
		inBubble(t, fakeamp.Config{}, func(t *testing.T, fake *fakeamp.Server, c *client) {
			fake.Inject(fault)
			closed := time.AfterFunc(time.Minute, fake.Close)
			defer closed.Stop()
			start := time.Now()
			resp, err := c.http.Get(c.base + "/info")
			if err == nil {
				defer resp.Body.Close()
				if fault.Do == fakeamp.EndlessBody {
					time.Sleep(2 * time.Minute) // The client neither reads nor leaves.
				}
				_, err = io.ReadAll(resp.Body)
			}
			if err == nil || time.Since(start) < time.Minute {
				t.Errorf("%+v: error %v after %v, want one after Close", fault, err, time.Since(start))
			}
		})
	}
}

func TestEndlessBodyEndsWithTheClient(t *testing.T) {
	fake, c := startLoggedIn(t)
	fake.Inject(fakeamp.Fault{Status: 503, Do: fakeamp.EndlessBody})
	resp, err := c.http.Get(c.base + "/info")
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyN(io.Discard, resp.Body, 10<<20)
	if resp.StatusCode != 503 || err != nil {
		t.Errorf("status %d, %d bytes, %v; want 503 and as many as asked for", resp.StatusCode, n, err)
	}
	resp.Body.Close() // The server's Close, at the end of the test, waits for the handler.
}

func TestEarlyAnswerDoesNotWaitForTheBody(t *testing.T) {
	for status, want := range map[int]int{429: 429, 0: 413} {
		fake, c := startLoggedIn(t)
		fake.Inject(fakeamp.Fault{Status: status, Do: fakeamp.EarlyAnswer})
		body, writer := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "POST", c.base+"/assets/issue", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 10 // Few bytes, which net/http would wait for if it were let.
		req.Header.Set("Authorization", "token "+c.token)
		got, err := c.send(req)
		if err != nil || got.status != want {
			t.Errorf("got %d, %v; want %d", got.status, err, want)
		}
		writer.Close()
		if n := len(fake.Effects()); n != 0 {
			t.Errorf("%d effects, want none", n)
		}
	}
}

// Whoever has given up does not hear of what is performed later.
func TestLateEffectComesAfterTheAnswerOrTheCut(t *testing.T) {
	for _, fault := range []fakeamp.Fault{
		{Do: fakeamp.Reset}, {Do: fakeamp.Close}, {Status: 502}, {Status: 503, Delay: time.Second}, {Do: fakeamp.StallHeaders},
	} {
		inBubble(t, fakeamp.Config{}, func(t *testing.T, fake *fakeamp.Server, c *client) {
			c.token = fake.Rotate("issuer")
			fault.Name, fault.Route, fault.When, fault.Late = "late", issueRoute, fakeamp.After, 40*time.Second
			fake.Inject(fault)
			c.http.Timeout = 5 * time.Second
			_, _ = c.issue("op")
			ended := time.Now()
			fake.Rotate("issuer") // who asked was checked
			time.Sleep(40*time.Second - 1)
			if n := len(fake.Effects()); n != 0 {
				t.Errorf("%+v: performed too early", fault)
			}
			time.Sleep(2 * time.Nanosecond)
			effects := fake.Effects()
			if len(effects) != 1 || effects[0].ID != "op" || effects[0].Fault != "late" || effects[0].Time.Sub(ended) != 40*time.Second {
				t.Errorf("%+v: effects %v, want one 40 s later", fault, effects)
			}
		})
	}
}

func TestLateEffectTakesATokenAndAFaultThatHidesTheAnswer(t *testing.T) {
	fake, c := start(t, fakeamp.Config{})
	fake.Inject(fakeamp.Fault{Route: issueRoute, When: fakeamp.After, Do: fakeamp.Reset, Late: time.Nanosecond})
	got, err := c.issue("op")
	if err != nil || got.status != 401 {
		t.Errorf("without a token: %v, %v, want 401", got, err)
	}
	for _, fault := range []fakeamp.Fault{
		{Late: time.Second, Do: fakeamp.Reset}, {Late: time.Second, When: fakeamp.After}, {Late: -1, When: fakeamp.After, Do: fakeamp.Reset},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was taken", fault)
				}
			}()
			fake.Inject(fault)
		}()
	}
}
