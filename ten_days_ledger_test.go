package ampauth_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// The other half of TestTenDays: its calls, what is held against them, and its server.

// call makes a call and says so if it failed, or waited, and no trouble excuses it.
func (d *tenDays) call(client *http.Client, method, path, id string) {
	req, err := http.NewRequest(method, d.w.url+"/api"+path, nil)
	if id != "" {
		req, err = http.NewRequest(method, d.w.url+"/api"+path, strings.NewReader(`{"name":"Bonds"}`))
		req.Header = http.Header{"Content-Type": {"application/json"}, "X-Operation-Id": {id}}
	}
	if err != nil {
		d.w.t.Error(err)
		return
	}
	if client == d.probe {
		req.Header.Set("X-Probe", "1")
	}
	began, sent := d.now(), 0
	d.set(func() { sent = d.sent })
	end := ""
	resp, err := client.Do(req)
	if err != nil {
		end = err.Error()
	} else {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		end = resp.Status
	}
	took, good := d.now()-began, err == nil && resp.StatusCode == 200

	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if id != "" {
		d.mutations[id] = good
	}
	excused := d.excuse(path, began, !good)
	if !excused && good {
		d.healed = len(d.happened)
	}
	// The limiter lets others pass all the time that this one waits.
	limited := time.Duration(float64(d.sent-sent+limiterSlack) / tenDaysRate * float64(time.Second))
	switch {
	case excused:
	case !good && d.late():
	case !good:
		d.fail("%s %s failed after %v: %s", method, path, took, end)
	case client == d.probe && took > 0:
		d.fail("%s %s, beside the limiter, took %v", method, path, took)
	case took > limited:
		d.fail("%s %s took %v, and the limiter wanted at most %v", method, path, took, limited)
	}
}

// limiterSlack is for those who ask the limiter twice, since they waited for a login.
const limiterSlack = 4

// excuse reports whether a trouble that has been since then may have done harm to a call;
// d.mu must be held.
func (d *tenDays) excuse(path string, began time.Duration, failed bool) (excused bool) {
	for _, t := range d.happened {
		if began < t.healed && (t.spares == nobody || t.spares == others && path == refuserPath) {
			excused = true
			if failed {
				t.failed++
			}
		}
	}
	return excused
}

// late reports whether one more call may fail after a trouble that has healed; d.mu must
// be held.
func (d *tenDays) late() bool {
	for _, t := range d.happened[d.healed:] {
		if t.late > 0 && d.now() >= t.healed {
			t.late--
			return true
		}
	}
	return false
}

// check holds what came to pass in all against what may.
func (d *tenDays) check() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, login := range d.logins {
		to := login + time.Hour
		most := 1 // for a token that ends
		var on []string
		for _, t := range d.happened {
			if t.healed < login || t.began >= to {
				continue
			}
			most += t.logins
			if t.every > 0 {
				most += int((min(t.healed, to) - max(t.began, login)) / t.every)
			}
			on = append(on, t.name)
		}
		if n := d.loginsIn(login, to); n > most {
			d.fail("%d logins in the hour from %s on, at most %d for %q", n, d.clock(login), most, on)
			break
		}
	}
	performed := make(map[string]int)
	for _, effect := range d.w.Effects() {
		performed[effect.ID]++
	}
	for id, good := range d.mutations { // none is in doubt: what failed did so before it was done
		if n := performed[id]; n > 1 || (n == 1) != good {
			d.fail("mutation %s was performed %d times, and succeeded: %v", id, n, good)
		}
	}
	stats := d.client.Stats()
	if stats.Obtains != d.obtained || stats.Refreshes != d.refreshed {
		d.fail("Stats say %d logins and %d refreshes, the server %d and %d", stats.Obtains, stats.Refreshes, d.obtained, d.refreshed)
	}
	d.w.t.Logf("seed %d: %d calls, %d mutations, %d troubles, %d login requests, %d logins, %d refreshes",
		d.seed, d.calls, len(d.mutations), len(d.happened), len(d.logins), d.obtained, d.refreshed)
}

// loginsIn counts login requests; d.mu must be held.
func (d *tenDays) loginsIn(from, to time.Duration) (n int) {
	for _, at := range d.logins {
		if from <= at && at < to {
			n++
		}
	}
	return n
}

// note writes an event down; d.mu must be held.
func (d *tenDays) note(format string, args ...any) {
	d.events = append(d.events, d.clock(d.now())+": "+fmt.Sprintf(format, args...))
	d.events = d.events[max(0, len(d.events)-10):]
}

// clock is a time as the reader of a failure counts it.
func (d *tenDays) clock(at time.Duration) string {
	return fmt.Sprintf("day %d, %v", 1+at/(24*time.Hour), at%(24*time.Hour))
}

// fail reports what went wrong and what was before it; d.mu must be held. After the third
// time the run ends.
func (d *tenDays) fail(format string, args ...any) {
	if d.failures++; d.failures > 3 {
		return
	}
	var on []string
	for _, t := range d.happened {
		if d.now() < t.healed {
			on = append(on, t.name)
		}
	}
	d.w.t.Errorf("%s: %s\ntroubles: %q\nbefore:\n\t%s\nto replay: go test -run TestTenDays -seed %d .",
		d.clock(d.now()), fmt.Sprintf(format, args...), on, strings.Join(d.events, "\n\t"), d.seed)
}

// A statusNoted is a ResponseWriter that knows the status; 0 if there was none.
type statusNoted struct {
	http.ResponseWriter
	status int
}

func (n *statusNoted) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (n *statusNoted) Unwrap() http.ResponseWriter { return n.ResponseWriter }

func (d *tenDays) serveObtain(rw http.ResponseWriter, r *http.Request) {
	noted := &statusNoted{ResponseWriter: rw}
	anew := false
	d.set(func() {
		d.logins = append(d.logins, d.now())
		anew = d.anew && !slices.ContainsFunc(d.happened, func(t *trouble) bool { return t.outage && d.now() < t.ended })
	})
	if anew {
		d.w.Rotate("issuer")
	}
	defer func() { d.set(func() { d.note("login answered %d", noted.status) }) }()
	d.w.ServeHTTP(noted, r)
	d.set(func() {
		if noted.status != 200 {
			return
		}
		d.obtained++
		if d.rotations > 0 && (d.rotated < rotationsBesideRefuser || !d.refused()) {
			d.rotations--
			d.rotated++
			d.w.Rotate("issuer")
			d.note("somebody else rotates the token")
		}
	})
}

// refused reports whether a resource has refused whatever token within the last hour; d.mu
// must be held.
func (d *tenDays) refused() bool {
	return slices.ContainsFunc(d.happened, func(t *trouble) bool { return t.spares == others && d.now() < t.ended+time.Hour })
}

func (d *tenDays) serveRefresh(rw http.ResponseWriter, r *http.Request) {
	noted := &statusNoted{ResponseWriter: rw}
	var fault fakeamp.Fault
	d.set(func() { fault = d.refresh })
	select {
	case <-time.After(fault.Delay):
	case <-r.Context().Done():
	}
	if fault.Status != 0 {
		noted.Header().Set("Content-Type", "application/json")
		noted.WriteHeader(fault.Status)
		_, _ = io.WriteString(noted, `{"detail":"No."}`)
	} else {
		d.w.ServeHTTP(noted, r)
	}
	d.set(func() {
		d.note("refresh answered %d", noted.status)
		if noted.status == 200 {
			d.refreshed++
		}
	})
}

// serve answers all but what is about tokens.
func (d *tenDays) serve(rw http.ResponseWriter, r *http.Request) {
	var retryAfter http.Header
	refuses := false
	d.set(func() {
		if r.Header.Get("X-Probe") == "" {
			d.sent++
		}
		if d.sent%2 == 0 {
			retryAfter = d.retryAfter
		}
		refuses = d.refuses && r.URL.Path == "/api"+refuserPath
	})
	rw.Header().Set("Content-Type", "application/json")
	switch {
	case retryAfter != nil:
		rw.Header().Set("Retry-After", retryAfter.Get("Retry-After"))
		rw.WriteHeader(429)
		_, _ = io.WriteString(rw, `{"detail":"Request was throttled."}`)
	case refuses:
		rw.WriteHeader(401)
		_, _ = io.WriteString(rw, `{"detail":"Invalid token."}`)
	default:
		d.w.ServeHTTP(rw, r)
	}
}
