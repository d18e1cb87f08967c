package ampauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// An issuance is a mutation as a user of the package writes it: Ticker is what it alone has.
type issuance struct {
	UUID   string `json:"asset_uuid,omitempty"`
	Name   string `json:"name"`
	Ticker string `json:"ticker"`
}

// issuing is that mutation, over any client of the fake.
func issuing(client *http.Client, base, ticker string) ampauth.Mutation[issuance] {
	return ampauth.Mutation[issuance]{
		Send: func(ctx context.Context) (issued issuance, err error) {
			body := fmt.Sprintf(`{"name":"Bond","ticker":%q}`, ticker)
			req, err := http.NewRequestWithContext(ctx, "POST", base+"/assets/issue", strings.NewReader(body))
			if err != nil {
				return issued, err
			}
			req.Header = http.Header{"Content-Type": {"application/json"}, "X-Operation-Id": {ticker}}
			resp, err := client.Do(req)
			if err != nil {
				return issued, err
			}
			defer resp.Body.Close()
			if err := ampauth.ResponseError(resp); err != nil {
				return issued, err
			}
			return issued, json.NewDecoder(resp.Body).Decode(&issued)
		},
		Find: func(ctx context.Context) (found issuance, ok bool, err error) {
			req, err := http.NewRequestWithContext(ctx, "GET", base+"/assets", nil)
			if err != nil {
				return found, false, err
			}
			resp, err := client.Do(req)
			if err != nil {
				return found, false, err
			}
			defer resp.Body.Close()
			if err := ampauth.ResponseError(resp); err != nil {
				return found, false, err
			}
			var assets []issuance
			if err := json.NewDecoder(resp.Body).Decode(&assets); err != nil {
				return found, false, err
			}
			i := slices.IndexFunc(assets, func(a issuance) bool { return a.Ticker == ticker })
			if i < 0 {
				return found, false, nil
			}
			return assets[i], true, nil
		},
	}
}

// onceTimes are the effects of an operation by the fake's log.
func onceTimes(fake *fakeamp.Server, id string) (n int) {
	for _, e := range fake.Effects() {
		if e.ID == id {
			n++
		}
	}
	return n
}

// sendFaults are what a Send may meet. Those that are Late come up to Settle later.
func sendFaults(r *rand.Rand, settle time.Duration) fakeamp.Fault {
	f := fakeamp.Fault{Route: ampIssue, When: fakeamp.When(r.IntN(2))}
	switch r.IntN(8) {
	case 0:
		f.Do = fakeamp.Reset
	case 1:
		f.Do = fakeamp.Close
	case 2:
		f.Do = fakeamp.StallHeaders
	case 3:
		f.Status = []int{408, 500, 502, 503, 504}[r.IntN(5)]
		f.HTML = r.IntN(2) == 0
	case 4:
		f.When, f.Status = fakeamp.Before, 429
		if r.IntN(2) == 0 {
			f.Header = http.Header{"Retry-After": {"3"}}
		}
		return f
	case 5:
		f.When, f.Do = fakeamp.After, fakeamp.CutBody
		return f
	case 6:
		f.When, f.Body = fakeamp.After, "<html>no JSON" // a 201 that nobody understands
		return f
	case 7:
		f.Delay = rand.N(90 * time.Second) // longer than a Send's time, maybe
		return f
	}
	if f.When == fakeamp.After && r.IntN(2) == 0 {
		f.Late = 1 + time.Duration(r.Int64N(int64(settle)))
	}
	return f
}

// TestEachMutationIsPerformedOnceOrItsDoubtIsTold is what Once is for. Ten thousand
// issuances, one after the other: up to two Sends of each meet a fault, whose effect comes
// before it, not at all, or up to Settle later; reads fail for a while, or for ever. Each
// is in the server's log exactly once, or its caller has ErrAmbiguous since no read
// succeeded; and never twice.
func TestEachMutationIsPerformedOnceOrItsDoubtIsTold(t *testing.T) {
	const each = 25
	worlds := 400
	if testing.Short() || raceEnabled {
		worlds = 16
	}
	seed := *stormSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	tally := make(map[string]int)
	for world := range worlds {
		if t.Failed() {
			break
		}
		ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
			client := w.client(func(cfg *ampauth.Config) { cfg.Retry.Budget = -1 })
			w.token(client.Tokens)
			for i := range each {
				r := rand.New(rand.NewPCG(seed, uint64(world*each+i)))
				w.issueOnce(client, r, fmt.Sprintf("T%d", i), tally)
			}
		})
	}
	t.Logf("seed %d: %d mutations", seed, worlds*each)
	for _, what := range slices.Sorted(maps.Keys(tally)) {
		t.Logf("%6d %s", tally[what], what)
	}
	for _, what := range []string{"performed", "performed: found by reading", "performed: sent again", "in doubt: performed", "in doubt: not performed", "late effects"} {
		if tally[what] == 0 {
			t.Errorf("the run proves nothing: none was %s", what)
		}
	}
}

func (w *ampWorld) issueOnce(client *ampauth.Client, r *rand.Rand, ticker string, tally map[string]int) {
	w.t.Helper()
	const settle = time.Minute
	late := false
	var met []string
	for range r.IntN(3) {
		f := sendFaults(r, settle)
		late = late || f.Late > 0
		w.Inject(f)
		met = append(met, fmt.Sprintf("%+v", f))
	}
	blind := r.IntN(20) == 0 // no read succeeds
	if blind {
		w.Inject(fakeamp.Fault{Route: "GET /assets", Times: -1, Status: 503})
	} else if r.IntN(3) == 0 {
		from := rand.N(2 * settle)
		outage := time.AfterFunc(from, func() {
			w.answer("GET /assets", []http.HandlerFunc{
				func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(502) },
				func(rw http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
				func(rw http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
				func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write([]byte(`[{"ticker":`)) },
			}[rand.IntN(4)])
		})
		over := time.AfterFunc(from+rand.N(settle/2), func() { w.answer("GET /assets", nil) })
		defer func() { outage.Stop(); over.Stop(); w.answer("GET /assets", nil) }()
	}
	m := issuing(client.Client, w.url+"/api", ticker)
	m.FindFirst = r.IntN(10) == 0
	sends, send := 0, m.Send
	m.Send = func(ctx context.Context) (issuance, error) { sends++; return send(ctx) }
	issued, err := ampauth.Once(w.t.Context(), ampauth.RetryConfig{BaseDelay: 4 * time.Second, MaxDelay: 15 * time.Second}, m)
	told := onceTimes(w.Server, ticker) // what the caller can rely on
	w.ClearFaults()
	time.Sleep(2 * settle)
	synctest.Wait()
	n := onceTimes(w.Server, ticker)
	if late && n > 0 {
		tally["late effects"]++
	}
	doubt := errors.Is(err, ampauth.ErrAmbiguous)
	switch {
	case n > 1:
		w.t.Errorf("%s was performed %d times: %v", ticker, n, err)
	case err == nil:
		if n != 1 || told != 1 || issued.Ticker != ticker {
			w.t.Errorf("%s: %d effects at the time, %d later, and the caller has %+v", ticker, told, n, issued)
		}
		tally["performed"]++
		if issued.Name == "" || sends == 0 {
			w.t.Errorf("%s: an incomplete %+v after %d Sends", ticker, issued, sends)
		}
		if sends > 1 {
			tally["performed: sent again"]++
		}
		if reads := len(w.requests("GET /assets")); reads > 0 {
			tally["performed: found by reading"]++
		}
	case doubt && blind && n == 1:
		tally["in doubt: performed"]++
	case doubt && blind:
		tally["in doubt: not performed"]++
	default:
		w.t.Errorf("%s, performed %d times, although reading was possible: %v", ticker, n, err)
	}
	if w.t.Failed() {
		w.t.Fatalf("it met %s", strings.Join(met, "\n"))
	}
	w.mu.Lock()
	w.seen = nil
	w.mu.Unlock()
}
