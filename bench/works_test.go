package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestMutationHasOneEffectWhateverTheServerDoes(t *testing.T) {
	ours := layer{"ampauth", ampauthRetry}
	for _, script := range [][]step{{fail, cut, succeed}, {fail, fail, fail}, {cut, cut, cut}, {cut, succeed}} {
		if n, end := perform(ours, script); n != 1 || end == "201" {
			t.Errorf("%s: performed %d times, the caller got %s", join(script), n, end)
		}
	}
}

func TestPeersRepeatAMutation(t *testing.T) {
	for _, peer := range retryLayers[1:] {
		if n, _ := perform(peer, []step{fail, cut, succeed}); n != attempts {
			t.Errorf("%s: performed %d times; the table says otherwise", peer.Name, n)
		}
	}
}

func TestHerdMakesOneLogin(t *testing.T) {
	const callers = 2000
	for _, cold := range []bool{true, false} {
		h, err := stampede(layer{"ampauth", ampauthStack}, callers, 20*time.Millisecond, cold)
		if err != nil || h.logins != 1 || h.served != callers {
			t.Errorf("cold %t: %d logins, %d served, %v", cold, h.logins, h.served, err)
		}
	}
}

// The times of a quick run mean nothing, but what runs here runs under -race.
func TestWorksThatAreTimedRun(t *testing.T) {
	for _, w := range Works[:3] {
		s, err := w.Measure(Options{Quick: true})
		if err != nil || len(s.Tables) == 0 || len(s.Goals) == 0 {
			t.Errorf("%s: %d tables, %d goals, %v", w.Name, len(s.Tables), len(s.Goals), err)
		}
	}
}

func TestFailedTrialEndsTheComparison(t *testing.T) {
	broken := errors.New("broken")
	ok := func(context.Context) error { return nil }
	bad := func(context.Context) error { return broken }
	for name, trials := range map[string][]trial{
		"serial":      {{"well", serially(ok)}, {"peer", serially(bad)}},
		"in parallel": {{"peer", inParallel(bad, 2)}},
	} {
		if _, err := timed(Options{Quick: true}, trials); !errors.Is(err, broken) || !strings.Contains(err.Error(), "peer") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// In real time, since the sockets are real; what is counted does not depend on it.
func TestCallsOfAnOutageAreCountedByWhenTheyAreDue(t *testing.T) {
	story := storyboard{200 * time.Millisecond, 400 * time.Millisecond, 400 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond}
	r := goThrough(layer{"once", bareTransport}, story, false, nil)
	if due := int(story.outage.Seconds() * clients); r.calls != due || r.attempts != due || r.amplification() != 1 {
		t.Errorf("%d calls and %d attempts, %d were due", r.calls, r.attempts, due)
	}
	if all := int(1 * clients); len(r.requests) != all {
		t.Errorf("%d requests, want %d", len(r.requests), all)
	}
}
