package renewal

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newMachine is a machine whose nth backoff is n seconds.
func newMachine() *Machine {
	return &Machine{
		Backoff:  func(n int) time.Duration { return time.Duration(n) * time.Second },
		Ahead:    3 * time.Minute,
		MaxAsked: 2 * time.Minute,
	}
}

// An event is told to a machine, or asked of it; what it answers is put in words.
type event func(m *Machine, now time.Time) string

// A step is an event at a moment, counted from the start, and the answer to it; "" for
// one that does not matter.
type step struct {
	at   time.Duration
	do   event
	want string
}

func asked(m *Machine, now time.Time) string { return m.Asked(now).inWords() }
func began(m *Machine, _ time.Time) string   { m.Began(); return "" }
func allow(m *Machine, _ time.Time) string   { m.Allow(); return "" }
func noRefresh(m *Machine, now time.Time) string {
	m.NoRefresh(now)
	return ""
}
func refreshes(m *Machine, now time.Time) string { return fmt.Sprint(m.Refreshes(now)) }
func attempts(m *Machine, _ time.Time) string    { return fmt.Sprint(m.Attempts(3)) }
func current(m *Machine, _ time.Time) string     { return fmt.Sprint(m.Current()) }
func loggedIn(m *Machine, _ time.Time) string    { m.LoggedIn(); return "" }
func paused(m *Machine, now time.Time) string {
	until, ok := m.Paused(now)
	if !ok {
		return "no"
	}
	return "until " + until.Sub(start).String()
}

// inherit makes another machine go on from m, and m that one.
func inherit(m *Machine, _ time.Time) string {
	heir := newMachine()
	heir.Inherit(m)
	*m = *heir
	return ""
}

// obtained is a login that brings a token without an end.
func obtained(id ID) event { return replaced(0, id) }

// replaced is a login that brings a token without an end in place of a refused one.
func replaced(old, id ID) event {
	return func(m *Machine, now time.Time) string {
		m.Began()
		m.LoggedIn()
		return fmt.Sprint(m.Obtained(id, Life{Obtained: now}, old))
	}
}

// came is a token that a login which began earlier brings in place of a refused one.
func came(id, old ID) event {
	return func(m *Machine, now time.Time) string {
		return fmt.Sprint(m.Obtained(id, Life{Obtained: now}, old))
	}
}

// ends is a login that brings a token with an end.
func ends(id ID, due, end time.Duration, assumed bool) event {
	return func(m *Machine, now time.Time) string {
		m.Began()
		m.LoggedIn()
		return fmt.Sprint(m.Obtained(id, Life{Obtained: now, Due: now.Add(due), End: now.Add(end), Assumed: assumed}, 0))
	}
}

func accepted(id ID, at Place) event {
	return func(m *Machine, now time.Time) string { m.Accepted(id, at); return "" }
}

func refused(id ID, at Place) event {
	return func(m *Machine, now time.Time) string { return m.Refused(id, at, now).inWords() }
}

func failed(why Failure) event { return failedAsking(why, 0) }

// failedAsking is a login that failed, and the server wants to be left alone.
func failedAsking(why Failure, asked time.Duration) event {
	return func(m *Machine, now time.Time) string { m.Failed(why, asked, now); return "" }
}

func lookAgain(at time.Duration) event {
	return func(m *Machine, _ time.Time) string { m.LookAgain(start.Add(at)); return "" }
}

// othersPause is that others pause for as long as is left.
func othersPause(left time.Duration) event {
	return func(m *Machine, now time.Time) string {
		return map[bool]string{true: "waits", false: "tries"}[m.OthersPause(now, left)]
	}
}
func nextPause(m *Machine, _ time.Time) string { return m.NextPause().String() }

func (v Verdict) inWords() string {
	if v.Action == Wait {
		return "wait until " + v.Until.Sub(start).String()
	}
	return [...]string{"serve", "ahead", "replace"}[v.Action]
}

// play tells a new machine the steps and reports each answer that is not the one wanted.
func play(t *testing.T, steps []step) {
	t.Helper()
	m := newMachine()
	for i, s := range steps {
		if got := s.do(m, start.Add(s.at)); s.want != "" && got != s.want {
			t.Errorf("step %d, at %v: %s, want %s", i, s.at, got, s.want)
		}
	}
}

type rule struct {
	name  string
	steps []step
}

func playAll(t *testing.T, rules []rule) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { play(t, r.steps) })
	}
}

const (
	ms   = time.Millisecond
	sec  = time.Second
	mins = time.Minute
	hour = time.Hour
	day  = 24 * time.Hour
	due  = day - 5*mins
	last = time.Nanosecond // before a limit

	a, b, c Place = 1, 2, 3
)

func TestAskedServesOrHasTheTokenReplaced(t *testing.T) {
	playAll(t, []rule{
		{"without a token there is a login", []step{{0, asked, "replace"}, {0, current, "0"}}},
		{"a token without an end is always served", []step{{0, obtained(1), "true"}, {0, asked, "serve"}, {1000 * day, asked, "serve"}, {0, current, "1"}}},
		{"a token is fresh until it is due", []step{{0, ends(1, due, day, true), ""}, {due - last, asked, "serve"}, {due, asked, "ahead"}}},
		{"a token that has ended is not served", []step{{0, ends(1, due, day, false), ""}, {day - last, asked, "ahead"}, {day, asked, "replace"}}},
		{"nor one whose end is assumed, if no login has failed", []step{{0, ends(1, due, day, true), ""}, {day, asked, "replace"}}},
		{"a clock that is set back makes a token due", []step{{0, obtained(1), ""}, {0, asked, "serve"}, {-last, asked, "ahead"}, {0, asked, "serve"}}},
		{"one is told to replace it ahead of time, the others are served", []step{
			{0, ends(1, due, day, false), ""}, {due, asked, "ahead"}, {due, asked, "serve"}, {due + 3*mins - last, asked, "serve"},
			{due + 3*mins, asked, "ahead"}, {due + 3*mins, asked, "serve"}}},
		{"a new token may be replaced ahead of time at once", []step{
			{0, ends(1, due, day, false), ""}, {due, asked, "ahead"}, {due, ends(2, 0, day, false), ""}, {due, asked, "ahead"}}},
		{"after a failure the next is told once the backoff is over", []step{
			{0, ends(1, due, day, false), ""}, {due, asked, "ahead"}, {due, failed(Unavailable), ""},
			{due + sec - last, asked, "serve"}, {due + sec, asked, "ahead"}}},
		{"which grows with the failures", []step{
			{0, ends(1, due, day, false), ""}, {due, failed(Unavailable), ""}, {due, failed(Unavailable), ""},
			{due + 2*sec - last, asked, "serve"}, {due + 2*sec, asked, "ahead"}}},
		{"and begins anew when the last is ten minutes old", []step{
			{0, ends(1, mins, day, false), ""}, {mins, failed(Unavailable), ""}, {11 * mins, failed(Unavailable), ""},
			{11*mins + sec - last, asked, "serve"}, {11*mins + sec, asked, "ahead"}}},
		{"and with a new token", []step{
			{0, failed(Unavailable), ""}, {0, ends(1, sec, day, false), ""}, {sec, failed(Unavailable), ""},
			{2*sec - last, asked, "serve"}, {2 * sec, asked, "ahead"}}},
		{"ahead of time the server gets the hour it asks for, and the pause is shorter", []step{
			{0, ends(1, sec, day, false), ""}, {sec, failedAsking(Unavailable, hour+2*sec), ""}, {sec, paused, "until 2m1s"},
			{hour + sec - last, asked, "serve"}, {hour + sec, asked, "ahead"}}},
		{"the pause puts off the replacement ahead of time as well", []step{
			{0, ends(1, sec, day, false), ""}, {sec, failed(RefusedCredentials), ""}, {sec, failed(RefusedCredentials), ""}, {sec, failed(RefusedCredentials), ""},
			{sec, paused, "until 5s"}, {5*sec - last, asked, "serve"}, {5 * sec, asked, "ahead"}}},
		{"it is looked for again when somebody else is at work", []step{
			{0, ends(1, sec, day, false), ""}, {sec, asked, "ahead"}, {sec, lookAgain(3 * sec), ""},
			{3*sec - last, asked, "serve"}, {3 * sec, asked, "ahead"}}},
	})
}

func TestTokenIsServedPastItsAssumedEnd(t *testing.T) {
	playAll(t, []rule{
		{"once a login has failed", []step{
			{0, ends(1, due, day, true), ""}, {day, asked, "replace"}, {day, failed(Unavailable), ""}, {day, asked, "serve"}, {day + sec, asked, "ahead"}, {day + sec, asked, "serve"}}},
		{"for ten minutes after the last failure", []step{
			{0, ends(1, due, day, true), ""}, {day, failed(Unavailable), ""}, {day + 10*mins - last, asked, "ahead"}, {day + 10*mins, asked, "replace"}}},
		{"and an older one is not replaced", []step{
			{0, obtained(1), ""}, {0, ends(2, due, day, true), ""}, {day, failed(Unavailable), ""}, {day, refused(1, a), "serve"}}},
		{"until it is refused, which costs nothing", []step{
			{0, ends(1, due, day, true), ""}, {0, accepted(1, b), ""}, {day, failed(Unavailable), ""}, {day, refused(1, b), "replace"}, {day, current, "0"}}},
		{"not after refused credentials, whatever failed since", []step{
			{0, ends(1, due, day, true), ""}, {day, failed(RefusedCredentials), ""}, {day + sec, failed(Unavailable), ""}, {day + 2*sec, asked, "replace"}}},
		{"because something on the way refused too", []step{
			{0, ends(1, due, day, true), ""}, {day, failed(RefusedByProxy), ""}, {day, asked, "serve"}, {day + sec, asked, "ahead"}}},
		{"while there is a pause nobody is told to replace it", []step{
			{0, ends(1, due, day, true), ""}, {day, failedAsking(Unavailable, mins), ""}, {day + mins - last, asked, "serve"}, {day + mins, asked, "ahead"}}},
		{"not if the end is known", []step{
			{0, ends(1, due, day, false), ""}, {day, failedAsking(Unavailable, mins), ""},
			{day + mins - last, asked, "wait until 24h1m0s"}, {day + mins, asked, "replace"}}},
		{"not after refused credentials", []step{
			{0, ends(1, due, day, true), ""}, {day, failed(RefusedCredentials), ""}, {day + sec - last, asked, "wait until 24h0m1s"}, {day + sec, asked, "replace"}}},
		{"not by what failed before it came", []step{
			{0, failed(Unavailable), ""}, {0, ends(1, due, day, true), ""}, {day, asked, "replace"}}},
		{"not after Allow", []step{
			{0, ends(1, due, day, true), ""}, {day, failed(Unavailable), ""}, {day, allow, ""}, {day, asked, "replace"}}},
	})
}

func TestFailedLoginsPause(t *testing.T) {
	credentials := []step{}
	for _, pause := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60} {
		credentials = append(credentials, step{0, failed(RefusedCredentials), ""}, step{0, paused, "until " + (time.Duration(pause) * sec).String()})
	}
	playAll(t, []rule{
		{"refused credentials for a second, doubled up to a minute", credentials},
		{"the pause ends at its moment", []step{
			{0, failed(RefusedCredentials), ""}, {sec - last, asked, "wait until 1s"}, {sec - last, paused, "until 1s"}, {sec, paused, "no"}, {sec, asked, "replace"}}},
		{"the first refusal by a proxy is free", []step{
			{0, failed(RefusedByProxy), ""}, {0, paused, "no"}, {0, failed(RefusedByProxy), ""}, {0, paused, "until 1s"},
			{0, failed(RefusedByProxy), ""}, {0, paused, "until 2s"}}},
		{"but the server gets what it asks for with it", []step{{0, failedAsking(RefusedByProxy, 5*sec), ""}, {0, paused, "until 5s"}}},
		{"it counts among those of the credentials", []step{
			{0, failed(RefusedByProxy), ""}, {0, failed(RefusedCredentials), ""}, {0, paused, "until 2s"},
			{0, failed(RefusedByProxy), ""}, {0, paused, "until 2s"}}},
		{"the first failure of another kind is free", []step{{0, failed(Unavailable), ""}, {0, paused, "no"}, {0, asked, "replace"}}},
		{"an outage pauses for half of its length, up to half a minute", []step{
			{0, failed(Unavailable), ""}, {4 * sec, failed(Unavailable), ""}, {4 * sec, paused, "until 6s"},
			{58 * sec, failed(Unavailable), ""}, {58 * sec, paused, "until 1m27s"},
			{mins, failed(Unavailable), ""}, {mins, paused, "until 1m30s"},
			{mins + 2*sec, failed(Unavailable), ""}, {mins + 2*sec, paused, "until 1m32s"},
			{5 * mins, failed(Unavailable), ""}, {5 * mins, paused, "until 5m30s"}}},
		{"it begins anew ten minutes after its last failure", []step{
			{0, failed(Unavailable), ""}, {10*mins - last, failed(Unavailable), ""}, {10*mins - last, paused, "until " + (10*mins - last + 30*sec).String()},
			{20*mins - last, failed(Unavailable), ""}, {20*mins - last, paused, "no"},
			{20*mins + sec, failed(Unavailable), ""}, {20*mins + sec, paused, "until " + (20*mins + sec + (sec+last)/2).String()}}},
		{"refused credentials are not forgotten by an outage", []step{
			{0, failed(RefusedCredentials), ""}, {0, failed(Unavailable), ""}, {0, failed(RefusedCredentials), ""}, {0, paused, "until 2s"}}},
		{"they are forgotten, and so is the pause, once some are accepted", []step{
			{0, failed(RefusedCredentials), ""}, {0, failed(RefusedCredentials), ""}, {0, loggedIn, ""}, {0, paused, "no"},
			{0, failed(RefusedCredentials), ""}, {0, paused, "until 1s"}}},
		{"a token from elsewhere does not end the pause", []step{
			{0, failed(RefusedCredentials), ""}, {0, came(1, 0), "true"}, {0, paused, "until 1s"}}},
		{"the server gets what it asks for, up to MaxAsked", []step{
			{0, failedAsking(Unavailable, 2*mins-last), ""}, {0, paused, "until " + (2*mins - last).String()},
			{0, failedAsking(Unavailable, 2*mins), ""}, {0, paused, "until 2m0s"}, {0, failedAsking(Unavailable, 2*mins+last), ""}, {0, paused, "until 2m0s"}}},
		{"also with refused credentials, if that is longer", []step{
			{0, failedAsking(RefusedCredentials, 30*sec), ""}, {0, paused, "until 30s"}, {0, failedAsking(RefusedCredentials, sec), ""}, {0, paused, "until 2s"}}},
		{"an outage pauses longer than it asks for", []step{
			{0, failed(Unavailable), ""}, {mins, failedAsking(Unavailable, sec), ""}, {mins, paused, "until 1m30s"}}},
		{"Allow ends it, and what made it grow", []step{
			{0, failed(RefusedCredentials), ""}, {0, failed(RefusedCredentials), ""}, {0, allow, ""}, {0, paused, "no"}, {0, asked, "replace"},
			{0, failed(RefusedCredentials), ""}, {0, paused, "until 1s"}}},
		{"an heir does not pause", []step{{0, failed(RefusedCredentials), ""}, {0, inherit, ""}, {0, paused, "no"}, {0, failed(RefusedCredentials), ""}, {0, paused, "until 1s"}}},
	})
}

func TestPauseOfOthersIsForWhoseCredentialsWereRefusedToo(t *testing.T) {
	playAll(t, []rule{
		{"whose were not tries", []step{{0, othersPause(10 * sec), "tries"}, {0, paused, "no"}, {0, asked, "replace"}}},
		{"also after other failures", []step{
			{0, failed(Unavailable), ""}, {0, failed(RefusedByProxy), ""}, {0, othersPause(10 * sec), "tries"}, {0, paused, "no"}}},
		{"whose were waits", []step{
			{0, failed(RefusedCredentials), ""}, {sec, othersPause(10 * sec), "waits"}, {sec, paused, "until 11s"},
			{11*sec - last, asked, "wait until 11s"}, {11 * sec, asked, "replace"}}},
		{"it does not shorten its own", []step{
			{0, failedAsking(RefusedCredentials, 30*sec), ""}, {0, othersPause(10 * sec), "waits"}, {0, paused, "until 30s"}}},
		{"a minute at most, whatever is left", []step{
			{0, failed(RefusedCredentials), ""}, {sec, othersPause(365 * day), "waits"}, {sec, paused, "until 1m1s"}}},
		{"a token that ends soon is not replaced in it", []step{
			{0, ends(1, sec, day, false), ""}, {sec, failed(RefusedCredentials), ""}, {2 * sec, othersPause(30 * sec), "waits"},
			{32*sec - last, asked, "serve"}, {32 * sec, asked, "ahead"}}},
		{"accepted credentials are tried again", []step{
			{0, failed(RefusedCredentials), ""}, {0, othersPause(10 * sec), "waits"}, {0, loggedIn, ""}, {0, paused, "no"},
			{0, othersPause(10 * sec), "tries"}}},
		{"and others after Allow", []step{
			{0, failed(RefusedCredentials), ""}, {0, allow, ""}, {0, othersPause(10 * sec), "tries"}}},
		{"each doubles the next one", []step{
			{0, nextPause, "1s"}, {0, othersPause(10 * sec), "tries"}, {0, nextPause, "2s"}, {0, failed(RefusedCredentials), ""}, {0, paused, "until 2s"},
			{0, nextPause, "4s"}, {0, othersPause(sec), "waits"}, {0, nextPause, "8s"}}},
		{"up to a minute", []step{
			{0, othersPause(0), ""}, {0, othersPause(0), ""}, {0, othersPause(0), ""}, {0, othersPause(0), ""}, {0, othersPause(0), ""},
			{0, nextPause, "32s"}, {0, othersPause(0), ""}, {0, nextPause, "1m0s"}, {0, othersPause(0), ""}, {0, nextPause, "1m0s"}}},
	})
}

func TestServerGetsAnHourIfMaxAskedIsNegative(t *testing.T) {
	for _, test := range []struct{ maxAsked, asked, want time.Duration }{
		{-1, hour - last, hour - last}, {-1, hour, hour}, {-1, hour + last, hour},
		{2 * hour, 2 * hour, hour}, {0, hour, 0}, {sec, hour, sec},
	} {
		m := newMachine()
		m.MaxAsked = test.maxAsked
		m.Failed(Unavailable, test.asked, start)
		if until, _ := m.Paused(start); until.Sub(start) != test.want {
			t.Errorf("MaxAsked %v: %v were asked for, and given %v, want %v", test.maxAsked, test.asked, until.Sub(start), test.want)
		}
	}
}

func TestLoginThatFailsAllTheTimeHasOneAttempt(t *testing.T) {
	playAll(t, []rule{
		{"all before the first failure", []step{{0, attempts, "3"}}},
		{"one until there is a success, however long that takes", []step{
			{0, failed(Unavailable), ""}, {0, attempts, "1"}, {5 * mins, failed(RefusedByProxy), ""}, {15 * mins, attempts, "1"},
			{day, attempts, "1"}, {day, failed(Unavailable), ""}, {2 * day, attempts, "1"}}},
		{"all after a success", []step{{0, failed(Unavailable), ""}, {0, obtained(1), "true"}, {0, attempts, "3"}}},
		{"all after Allow", []step{{0, failed(Unavailable), ""}, {0, allow, ""}, {0, attempts, "3"}}},
		{"all of an heir's", []step{{0, failed(Unavailable), ""}, {0, inherit, ""}, {0, attempts, "3"}}},
	})
}

func TestRefreshIsLeftAloneForAnHour(t *testing.T) {
	playAll(t, []rule{
		{"it is tried at first", []step{{0, refreshes, "true"}}},
		{"it is not for an hour", []step{{0, noRefresh, ""}, {0, refreshes, "false"}, {hour - last, refreshes, "false"}, {hour, refreshes, "true"}}},
		{"Allow ends that", []step{{0, noRefresh, ""}, {0, allow, ""}, {0, refreshes, "true"}}},
		{"an heir knows", []step{{0, noRefresh, ""}, {0, inherit, ""}, {hour - last, refreshes, "false"}}},
		{"a new token does not end it", []step{{0, noRefresh, ""}, {0, obtained(1), ""}, {0, refreshes, "false"}}},
	})
}

func TestRefusedTokenIsReplacedIfThatMayHelp(t *testing.T) {
	// vain is three logins that help nobody, as soon as they are allowed.
	vain := func(at Place) []step {
		return []step{
			{0, obtained(1), ""}, {0, refused(1, at), "replace"}, {0, obtained(2), ""}, {0, refused(2, at), "replace"},
			{0, obtained(3), ""}, {20*mins - last, refused(3, at), "wait until 20m0s"}, {20 * mins, refused(3, at), "replace"},
			{20 * mins, obtained(4), ""}}
	}
	playAll(t, []rule{
		{"without a token there is a login", []step{{0, refused(0, a), "replace"}, {0, refused(7, a), "replace"}}},
		{"an older token was replaced already", []step{{0, obtained(1), ""}, {0, obtained(2), ""}, {0, refused(1, a), "serve"}, {0, refused(0, a), "serve"}, {0, current, "2"}}},
		{"unless its successor has ended", []step{
			{0, ends(1, due, day, false), ""}, {0, ends(2, due, day, false), ""}, {day - last, refused(1, a), "serve"}, {day, refused(1, a), "replace"}}},
		{"one that this place accepted was ended by somebody", []step{
			{0, obtained(1), ""}, {0, accepted(1, a), ""}, {0, refused(1, a), "replace"}, {0, current, "0"}, {0, asked, "replace"}}},
		{"as often as that happens", func() (all []step) {
			for id := range ID(20) {
				all = append(all, step{0, obtained(id + 1), "true"}, step{0, accepted(id+1, a), ""}, step{0, refused(id+1, a), "replace"})
			}
			return all
		}()},
		{"one that is good elsewhere, where an earlier one was good here, stays meanwhile", []step{
			{0, obtained(1), ""}, {0, accepted(1, a), ""}, {0, obtained(2), ""}, {0, accepted(2, b), ""}, {0, refused(2, a), "replace"}, {0, current, "2"}}},
		{"one that is good elsewhere is served to others meanwhile", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {0, current, "1"}, {0, asked, "serve"}}},
		{"said again, or by others, it costs nothing more", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {0, refused(1, a), "replace"}, {0, refused(1, a), "replace"},
			{0, refused(1, c), "replace"}, {0, refused(1, 4), "replace"},
			{0, obtained(2), ""}, {0, refused(2, 5), "replace"}, {0, refused(2, 6), "replace"}, {0, obtained(3), ""}, {0, refused(3, 7), "wait until 20m0s"}}},
		{"one that others took as well is served to them until a second refuses it", []step{
			{0, obtained(1), ""}, {0, accepted(1, a), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {0, current, "1"},
			{sec, failed(Unavailable), ""}, {sec, asked, "serve"}, {sec, refused(1, a), "replace"}, {sec, current, "1"},
			{sec, refused(1, b), "replace"}, {sec, current, "0"}, {2 * sec, failed(Unavailable), ""}, {2 * sec, current, "0"}}},
		{"two places that refuse it speak for its end", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {0, obtained(3), ""},
			{0, refused(3, b), "wait until 20m0s"}, {0, refused(3, b), "wait until 20m0s"}, {0, refused(3, c), "replace"}, {0, current, "0"}}},
		{"one that has ended is replaced anyway", []step{
			{0, ends(1, due, day, false), ""}, {0, refused(1, b), "replace"}, {0, ends(2, due, day, false), ""}, {0, accepted(2, a), ""},
			{day - last, refused(2, b), "replace"}, {day, refused(2, b), "replace"}}},
		{"a place that takes it now and then is not good", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {0, accepted(1, a), ""}, {0, refused(1, a), "replace"}, {0, current, "1"}}},
		{"a place that refused two in a row while the second is good elsewhere waits for 20 minutes", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {sec, obtained(2), ""}, {sec, accepted(2, b), ""},
			{sec, refused(2, a), "wait until 20m0s"}, {sec, current, "2"}, {20*mins - last, refused(2, a), "wait until 20m0s"},
			{20 * mins, refused(2, a), "replace"}, {20 * mins, current, "2"},
			{20 * mins, obtained(3), ""}, {20 * mins, accepted(3, b), ""}, {20 * mins, refused(3, a), "wait until 1h0m0s"}}},
		{"and leaves the other places alone", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {sec, obtained(2), ""}, {sec, accepted(2, b), ""},
			{sec, refused(2, a), "wait until 20m0s"}, {sec, asked, "serve"}, {sec, refused(2, b), "replace"}, {sec, asked, "replace"}}},
		{"and may become good", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {sec, obtained(2), ""}, {sec, accepted(2, b), ""},
			{sec, refused(2, a), "wait until 20m0s"}, {sec, accepted(2, a), ""}, {sec, refused(2, a), "replace"}, {sec, refused(2, b), "replace"}, {sec, current, "0"}}},
		{"a token accepted nowhere is replaced twice at once, and then after 20 minutes", vain(a)},
		{"a login that failed counts from when it is asked for again", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {mins, failed(Unavailable), ""},
			{30 * mins, refused(2, a), "replace"}, {30 * mins, obtained(3), ""}, {31 * mins, refused(3, a), "wait until 50m0s"}}},
		{"and is served while the refusal stands", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, asked, "replace"}, {0, obtained(2), ""}, {0, refused(2, a), "replace"},
			{0, obtained(3), ""}, {0, refused(3, a), "wait until 20m0s"}, {0, asked, "serve"}}},
		{"by whatever places", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, refused(2, b), "replace"},
			{0, obtained(3), ""}, {0, refused(3, c), "wait until 20m0s"}}},
		{"four times in any hour", slices.Concat(vain(a), []step{
			{20 * mins, refused(4, a), "wait until 40m0s"}, {40*mins - last, refused(4, a), "wait until 40m0s"}, {40 * mins, refused(4, a), "replace"}, {40 * mins, obtained(5), ""},
			{40 * mins, refused(5, a), "wait until 1h0m0s"}, {hour - last, refused(5, a), "wait until 1h0m0s"}, {hour, refused(5, a), "replace"}, {hour, obtained(6), ""},
			{hour, refused(6, a), "wait until 1h20m0s"}})},
		{"the hour may be longer than 20 minutes after the last", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {0, obtained(3), ""},
			{20 * mins, refused(3, a), "replace"}, {20 * mins, obtained(4), ""}, {40*mins - last, refused(4, a), "wait until 40m0s"}, {40 * mins, refused(4, a), "replace"},
			{40 * mins, obtained(5), ""}, {hour - last, refused(5, a), "wait until 1h0m0s"}}},
		{"an hour later there are two at once again", slices.Concat(vain(a), []step{
			{80*mins - last, refused(4, a), "replace"}, {80*mins - last, obtained(5), ""}, {80*mins - last, refused(5, a), "wait until " + (100*mins - last).String()},
			{100 * mins, allow, ""}, {100 * mins, refused(5, a), "replace"}, {100 * mins, obtained(6), ""}, {160 * mins, refused(6, a), "replace"}, {160 * mins, obtained(7), ""},
			{160 * mins, refused(7, a), "replace"}, {160 * mins, obtained(8), ""}, {160 * mins, refused(8, a), "wait until 3h0m0s"}})},
		{"a place that was good has five, and all at once", []step{
			{0, obtained(1), ""}, {0, accepted(1, 11), ""}, {0, accepted(1, 12), ""}, {0, accepted(1, 13), ""}, {0, accepted(1, 14), ""}, {0, accepted(1, 15), ""}, {0, accepted(1, 16), ""},
			{0, obtained(2), ""}, {0, refused(2, 11), "replace"}, {sec, obtained(3), ""}, {sec, refused(3, 12), "replace"}, {2 * sec, obtained(4), ""}, {2 * sec, refused(4, 13), "replace"},
			{3 * sec, obtained(5), ""}, {3 * sec, refused(5, 14), "replace"}, {4 * sec, obtained(6), ""}, {4 * sec, refused(6, 15), "replace"}, {5 * sec, obtained(7), ""},
			{5 * sec, refused(7, 16), "wait until 1h0m0s"}, {hour - last, refused(7, 16), "wait until 1h0m0s"}, {hour, refused(7, 16), "replace"}, {hour, current, "0"}}},
		{"a token that this place accepted is replaced whatever was in vain", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {0, obtained(3), ""}, {20 * mins, refused(3, a), "replace"},
			{20 * mins, obtained(4), ""}, {40 * mins, refused(4, a), "replace"}, {40 * mins, obtained(5), ""}, {40 * mins, accepted(5, b), ""}, {40 * mins, accepted(5, c), ""},
			{40 * mins, obtained(6), ""}, {40 * mins, refused(6, b), "replace"}, {40 * mins, obtained(7), ""}, {40 * mins, refused(7, c), "wait until 1h0m0s"},
			{40 * mins, accepted(7, c), ""}, {40 * mins, refused(7, c), "replace"}}},
		{"neither the hour of the first of four nor the 20 minutes of the last are cut", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {mins, refused(2, a), "replace"}, {mins, obtained(3), ""}, {21 * mins, refused(3, a), "replace"},
			{21 * mins, obtained(4), ""}, {41 * mins, refused(4, a), "replace"}, {41 * mins, obtained(5), ""}, {41 * mins, refused(5, a), "wait until 1h1m0s"}}},
		{"without a token an unknown one's refusal is not counted", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {0, current, "0"}, {0, refused(0, c), "replace"}}},
		{"a place is not good by an earlier token, or none", []step{
			{0, obtained(1), ""}, {0, obtained(2), ""}, {0, accepted(1, b), ""}, {0, refused(2, c), "replace"}, {0, accepted(0, a), ""}, {0, obtained(3), ""},
			{0, refused(3, c), "replace"}, {0, obtained(4), ""}, {0, refused(4, a), "wait until 20m0s"}}},
		{"others leave the last of the five to those", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, accepted(1, c), ""}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {0, obtained(3), ""}, {0, refused(3, a), "replace"},
			{20 * mins, obtained(4), ""}, {20 * mins, refused(4, a), "replace"}, {40 * mins, obtained(5), ""}, {40 * mins, refused(5, a), "replace"}, {40 * mins, obtained(6), ""},
			{40 * mins, refused(6, a), "wait until 1h0m0s"}, {40 * mins, refused(6, b), "replace"}, {40 * mins, obtained(7), ""},
			{40 * mins, refused(7, a), "wait until 1h0m0s"}, {40 * mins, refused(7, c), "wait until 1h0m0s"}}},
		{"a login was not in vain if the place accepts afterwards", func() (all []step) {
			for id := ID(1); id < 20; id += 2 { // somebody has ended the first before it was used
				all = append(all, step{0, obtained(id), ""}, step{0, refused(id, a), "replace"}, step{0, obtained(id + 1), ""}, step{0, accepted(id+1, a), ""})
			}
			return append(all, step{0, obtained(30), ""}, step{0, refused(30, b), "replace"}, step{sec, obtained(31), ""}, step{sec, refused(31, b), "replace"},
				step{sec, obtained(32), ""}, step{sec, refused(32, b), "wait until 20m1s"})
		}()},
		{"another place's acceptance does not count for that", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, accepted(2, b), ""},
			{sec, refused(2, c), "replace"}, {sec, obtained(3), ""}, {sec, refused(3, 4), "wait until 20m1s"}}},
		{"the logins for a place were not in vain once it accepts", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {sec, obtained(2), ""}, {sec, refused(2, a), "replace"}, {sec, obtained(3), ""}, {sec, accepted(3, a), ""},
			{2 * sec, refused(3, b), "replace"}, {2 * sec, obtained(4), ""}, {2 * sec, refused(4, c), "replace"},
			{2 * sec, obtained(5), ""}, {2 * sec, refused(5, 6), "wait until 20m2s"}}},
		{"an earlier token's acceptance says nothing", []step{
			{0, obtained(1), ""}, {0, obtained(2), ""}, {0, accepted(1, a), ""}, {0, refused(2, a), "replace"}, {0, obtained(3), ""},
			{0, refused(3, a), "replace"}, {0, obtained(4), ""}, {0, accepted(0, a), ""}, {0, refused(4, a), "wait until 20m0s"}}},
		{"a place that accepted any token has five, and all at once", []step{
			{0, obtained(1), ""}, {0, accepted(1, a), ""}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {0, obtained(3), ""},
			{0, refused(3, a), "replace"}, {0, obtained(4), ""}, {0, refused(4, a), "replace"}, {0, obtained(5), ""}, {0, refused(5, a), "replace"},
			{0, obtained(6), ""}, {0, refused(6, a), "replace"}, {0, obtained(7), ""}, {0, refused(7, a), "wait until 1h0m0s"}}},
		{"Allow forgets what was in vain", slices.Concat(vain(a), []step{
			{20 * mins, refused(4, a), "wait until 40m0s"}, {20 * mins, allow, ""}, {20 * mins, refused(4, a), "replace"}})},
		{"Allow forgets bad places", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {sec, obtained(2), ""}, {sec, accepted(2, b), ""},
			{sec, refused(2, a), "wait until 20m0s"}, {sec, allow, ""}, {sec, refused(2, a), "replace"}}},
		{"Allow lets a replacement ahead of time begin", []step{{0, ends(1, 0, day, false), ""}, {0, asked, "ahead"}, {0, asked, "serve"}, {0, allow, ""}, {0, asked, "ahead"}}},
	})
}

func TestTokenThatWasRefusedMeanwhileIsNotKept(t *testing.T) {
	list := func(n ID) (all []step) { // of refused tokens, while a login is under way
		all = []step{{0, began, ""}}
		for id := range n {
			all = append(all, step{0, refused(id+1, a), "replace"}, step{0, refused(id+1, a), "replace"})
		}
		return all
	}
	playAll(t, []rule{
		{"but only its waiters get it", []step{
			{0, began, ""}, {0, refused(1, a), "replace"}, {0, came(1, 0), "false"}, {0, current, "0"}, {0, asked, "replace"}}},
		{"also if it was current when the login began", []step{
			{0, obtained(1), ""}, {0, accepted(1, a), ""}, {0, began, ""}, {0, refused(1, a), "replace"}, {0, came(1, 0), "false"}, {0, current, "0"}}},
		{"what was refused before the login began, it may bring", []step{
			{0, refused(1, a), "replace"}, {0, began, ""}, {0, came(1, 0), "true"}, {0, asked, "serve"}}},
		{"the login for it brings it once more", []step{
			{0, began, ""}, {0, refused(1, a), "replace"}, {0, came(1, 1), "true"}, {0, asked, "serve"}}},
		{"eight of them are known", append(list(8), step{0, came(1, 0), "false"}, step{0, came(8, 0), "false"}, step{0, came(9, 0), "true"})},
		{"of nine the first is forgotten", append(list(9), step{0, came(2, 0), "false"}, step{0, came(1, 0), "true"})},
		{"a refusal that stands does not keep it from coming", []step{
			{0, obtained(1), ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, refused(2, a), "replace"}, {0, obtained(3), ""}, {0, began, ""},
			{0, refused(3, a), "wait until 20m0s"}, {0, came(3, 0), "true"}}},
		{"an heir knows", []step{{0, began, ""}, {0, refused(1, a), "replace"}, {0, inherit, ""}, {0, came(1, 0), "false"}}},
	})
}

func TestSameTokenOnceMoreIsJudgedByTheNextRefusal(t *testing.T) {
	playAll(t, []rule{
		{"it is another for the place that refused it", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {sec, replaced(1, 1), "true"}, {sec, accepted(1, b), ""},
			{sec, refused(1, a), "wait until 20m0s"}}},
		{"what it was worth before is undone", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, a), "replace"}, {0, current, "1"}, {sec, replaced(1, 1), "true"},
			{sec, refused(1, a), "replace"}, {sec, current, "0"}, {sec, replaced(1, 1), "true"}, {sec, refused(1, a), "wait until 20m1s"}}},
		{"but not if no refusal asked for it", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, obtained(1), "true"}, {0, refused(1, a), "replace"}, {0, current, "1"}}},
		{"nor by another token", []step{
			{0, obtained(1), ""}, {0, accepted(1, b), ""}, {0, refused(1, b), "replace"}, {0, replaced(1, 2), "true"}, {0, accepted(2, b), ""},
			{0, refused(2, a), "replace"}, {0, current, "2"}}},
	})
}

func TestWithoutAPlaceAgeIsTheProof(t *testing.T) {
	playAll(t, []rule{
		{"a token of 20 minutes was good, and may be replaced at once", []step{
			{0, obtained(1), ""}, {0, refused(1, 0), "replace"}, {0, obtained(2), ""}, {0, refused(2, 0), "replace"}, {0, obtained(3), ""},
			{20*mins - last, refused(3, 0), "wait until 20m0s"}, {20 * mins, refused(3, 0), "replace"}, {20 * mins, current, "0"},
			{20 * mins, obtained(4), ""}, {40*mins - last, refused(4, 0), "wait until 40m0s"}, {40 * mins, refused(4, 0), "replace"},
			{40 * mins, obtained(5), ""}, {hour - last, refused(5, 0), "wait until 1h0m0s"}, {hour, refused(5, 0), "replace"}}},
		{"a younger one was not", []step{
			{0, obtained(1), ""}, {20*mins - last, refused(1, 0), "replace"}, {20*mins - last, current, "0"}, {20*mins - last, obtained(2), ""},
			{20*mins - last, refused(2, 0), "replace"}, {20*mins - last, obtained(3), ""}, {40*mins - 2*last, refused(3, 0), "wait until " + (40*mins - last).String()}}},
		{"it has five in any hour too", []step{
			{0, obtained(1), ""}, {0, accepted(1, 11), ""}, {0, accepted(1, 12), ""}, {0, accepted(1, 13), ""}, {0, accepted(1, 14), ""},
			{0, obtained(2), ""}, {0, refused(2, 11), "replace"}, {0, obtained(3), ""}, {0, refused(3, 12), "replace"},
			{0, obtained(4), ""}, {0, refused(4, 13), "replace"}, {0, obtained(5), ""}, {0, refused(5, 14), "replace"}, {0, obtained(6), ""},
			{20*mins - last, refused(6, 0), "wait until 1h0m0s"}, {20 * mins, refused(6, 0), "replace"}, {20 * mins, obtained(7), ""},
			{hour - last, refused(7, 0), "wait until 1h0m0s"}, {hour, refused(7, 0), "replace"}}},
		{"whatever another place said", []step{
			{0, obtained(1), ""}, {0, accepted(1, a), ""}, {0, refused(1, 0), "replace"}, {0, current, "1"}, {0, obtained(2), ""}, {0, accepted(2, a), ""},
			{0, refused(2, 0), "replace"}, {0, current, "2"}, {0, obtained(3), ""}, {0, accepted(3, a), ""}, {0, refused(3, 0), "wait until 20m0s"}, {0, current, "3"}}},
	})
}

func TestSixtyFourPlacesAreRemembered(t *testing.T) {
	// accept has n places accept the token, from the first.
	accept := func(first, n Place) (all []step) {
		for at := range n {
			all = append(all, step{0, accepted(1, first+at), ""})
		}
		return all
	}
	token := []step{{0, obtained(1), ""}}
	// free shows that no login so far may have been in vain, and charged that one was.
	charged := []step{{0, obtained(2), ""}, {0, refused(2, 900), "replace"}, {0, obtained(3), ""}, {0, refused(3, 900), "wait until 20m0s"}}
	free := append(slices.Clone(charged[:3]), step{0, refused(3, 900), "replace"}, step{0, obtained(4), ""}, step{0, refused(4, 900), "wait until 20m0s"})
	// bad makes A a bad place.
	bad := []step{{0, obtained(2), ""}, {0, accepted(2, b), ""}, {0, refused(2, a), "replace"}, {0, obtained(1), ""}, {0, accepted(1, b), ""}}
	playAll(t, []rule{
		{"the first of 64 is", slices.Concat(token, accept(1, 64), []step{{0, refused(1, 1), "replace"}}, free)},
		{"the first of 65 is not", slices.Concat(token, accept(1, 65), []step{{0, refused(1, 1), "replace"}}, charged)},
		{"the second of 65 is", slices.Concat(token, accept(1, 65), []step{{0, refused(1, 2), "replace"}}, free)},
		{"one that accepts once more is new again", slices.Concat(token, accept(1, 64), accept(1, 1), accept(65, 1), []step{{0, refused(1, 1), "replace"}}, free)},
		{"and does not count twice", slices.Concat(token, accept(1, 64), accept(1, 64), []step{{0, refused(1, 1), "replace"}}, free)},
		{"good ones are forgotten before those that refuse", slices.Concat(bad, accept(100, 1000), []step{{0, refused(1, a), "wait until 20m0s"}})},
		{"of those that refuse the oldest is forgotten", func() (all []step) {
			// 65 places refuse 65 tokens, each good elsewhere, none of them twice; an hour each.
			for n := range 65 {
				at, id := time.Duration(n)*hour, ID(n+1)
				all = append(all, step{at, obtained(id), ""}, step{at, refused(id, Place(n+1)), "replace"})
			}
			// The first is not known any more, so that a login is worth it at once.
			at := 64*hour + sec
			return append(all, step{at, obtained(100), ""}, step{at, accepted(100, 1000), ""}, step{at, refused(100, 65), "wait until " + (64*hour + 20*mins).String()},
				step{at, refused(100, 1), "replace"})
		}()},
	})
}

func TestHeirGoesOnWithTheToken(t *testing.T) {
	playAll(t, []rule{
		{"serves it", []step{{0, obtained(1), ""}, {0, inherit, ""}, {0, current, "1"}, {0, asked, "serve"}}},
		{"knows its end", []step{{0, ends(1, due, day, false), ""}, {0, inherit, ""}, {due - last, asked, "serve"}, {due, asked, "ahead"}, {day, asked, "replace"}}},
		{"knows that it was accepted", []step{{0, obtained(1), ""}, {0, accepted(1, a), ""}, {0, inherit, ""}, {0, refused(1, b), "replace"}, {0, current, "1"}}},
		{"does not take its first token for the one that a place refused", []step{
			{0, obtained(1), ""}, {0, inherit, ""}, {0, refused(1, a), "replace"}, {0, obtained(2), ""}, {0, accepted(2, b), ""}, {0, refused(2, a), "wait until 20m0s"}}},
		{"may replace it ahead of time at once", []step{{0, ends(1, 0, day, false), ""}, {0, asked, "ahead"}, {0, inherit, ""}, {0, asked, "ahead"}}},
		{"has logins in vain of its own", []step{
			{0, obtained(1), ""}, {0, refused(1, a), ""}, {0, obtained(2), ""}, {0, refused(2, a), ""}, {0, obtained(3), ""}, {0, refused(3, a), "wait until 20m0s"},
			{0, inherit, ""}, {0, refused(3, a), "replace"}}},
	})
}
