package ampauth_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
	"golang.org/x/sync/errgroup"
)

// testSingleFault returns which promises were broken, and what else is wrong with
// how the call ended. The time is that of an attempt.
func testSingleFault(t *testing.T, world string, call wireCall, f *wireFault, timeout time.Duration) (broken, wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	var records ampLog
	good := wireCall{wireKind: wireKind{method: "GET", path: "/info"}}
	w := newWireWorld(t, world, func(n int) wireCall {
		if n == call.number {
			return call
		}
		return good
	}, records.into, func(cfg *ampauth.Config) { cfg.Retry.Timeout, cfg.Retry.MutationTimeout = timeout, timeout })
	defer w.end()
	w.pool.DisableKeepAlives = f.ofConnection() // every request needs one then
	if end := w.do(good); end.err != nil {
		say("the connection cannot be used even once: %v", end.err)
	}
	end := w.do(call)
	w.end()

	log := make(map[int][]hostile.Entry)
	arrived(w.server.Log(), log)
	entries := log[call.number]
	if verdict := end.verdict(entries); verdict != "" {
		broken = append(broken, verdict)
	}
	got := wireWant{status: end.status, broken: end.status != 0 && end.err != nil, requests: len(entries), effects: effectsOf(entries)}
	if ours, ok := errors.AsType[*ampauth.Error](end.err); ok && end.status == 0 {
		got.outcome = ours.Outcome
		if ours.Outcome == ampauth.Ambiguous && ours.Attempts != 1 {
			say("in doubt after %d attempts", ours.Attempts)
		}
	}
	want := f.want(&call, len(entries) > 0 && entries[0].Proto == "HTTP/2.0")
	if !call.mutates { // how often does not matter
		got.requests, got.effects, want.requests, want.effects = 0, 0, 0, 0
	}
	if got != want {
		say("it ended in %+v, want %+v", got, want)
	}
	if told := tells(records.String()); told != "" {
		broken = append(broken, "the log tells "+told)
	}
	ended := fmt.Sprintf("it ended in %v; the server's log has %v", end.err, entries)
	if broken != nil {
		broken = append(broken, ended)
	} else if wrong != nil {
		wrong = append(wrong, ended)
	}
	return broken, wrong
}

// Each fault once, to a request of each sort, over a connection that was used
// before where there is one.
func TestAnySingleFaultEndsAsItMust(t *testing.T) {
	takesLong(t, 14)
	type test struct {
		name, world string
		call        wireCall
		fault       *wireFault
		wrong       []string
	}
	var tests []*test
	for name, world := range wireWorlds {
		if world.own || world.restless {
			continue // no fault can be put into its dials, or it has no single end
		}
		for i := range wireFaults {
			f := &wireFaults[i]
			http2 := world.protocol == hostile.HTTP2
			if f.http2 && !http2 || f.ofConnection() && (world.layer != nil && !(world.conns && world.protocol == hostile.HTTP1TLS) || http2) {
				continue
			}
			for _, call := range []wireCall{
				{wireKind: wireKind{"POST", "/assets/issue", true, true}},
				{wireKind: wireKind{"POST", "/assets/issue", true, true}, key: true},
				{wireKind: wireKind{"POST", "/assets/6f0e/burn-request", false, true}},
				{wireKind: wireKind{"GET", "/assets/6f0e/register", false, true}},
				{wireKind: wireKind{"PUT", "/assets/6f0e/edit", true, false}},
				{wireKind: wireKind{"GET", "/assets", false, false}},
			} {
				if f.Upload != hostile.ReadBefore && !call.body {
					continue
				}
				call.number = 1
				if call.body {
					call.size = 200 << 10
				}
				if f.ofConnection() {
					call.dials = []*wireFault{f}
				} else {
					call.faults = []*wireFault{f}
				}
				tests = append(tests, &test{
					name:  fmt.Sprintf("%s/%s/%s %s, key %v", name, f.Name, call.method, call.path, call.key),
					world: name, call: call, fault: f,
				})
			}
		}
	}
	// They wait rather than work, so many can run at once.
	var running errgroup.Group
	running.SetLimit(50)
	for _, test := range tests {
		running.Go(func() error {
			for _, timeout := range test.fault.times() {
				broken, other := testSingleFault(t, test.world, test.call, test.fault, timeout)
				test.wrong = append(broken, other...)
				if broken != nil || other == nil {
					break // a broken promise is not forgiven
				}
			}
			return nil
		})
	}
	_ = running.Wait()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, wrong := range test.wrong {
				t.Error(wrong)
			}
		})
	}
}
