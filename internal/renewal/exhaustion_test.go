package renewal

import (
	"slices"
	"testing"
	"time"
)

// An invariant is what holds whatever happens.
type invariant string

const (
	servesGood      invariant = "what is served is there, was not refused, and has not ended unless that is assumed and a login failed"
	oneAhead        invariant = "ReplaceAhead is told once until that login ends, or its time is over"
	oneAheadPastEnd invariant = "that holds for a token past its assumed end too"
	asksRight       invariant = "Asked serves if there is what may be served, logs in if there is no pause, and else waits for its end"
	waitsAnHour     invariant = "a refusal waits for a moment to come, an hour at most"
	waitsServed     invariant = "a refusal waits only while there is a token to serve"
	waitsForNothing invariant = "a refusal waits only if no login is under way for another"
	keepsItsWord    invariant = "a refusal that waited does not wait again when that is over"
	olderServed     invariant = "an older token is not replaced while there is one to serve"
	fiveInVain      invariant = "at most five logins in any hour that the place does not accept that asked for them"
	fiveInVainOfAll invariant = "that holds for places that accepted an older token too"
	boundedPause    invariant = "a pause is not longer than its bound"
	notPaused       invariant = "an hour later a login is allowed"
	newServed       invariant = "a new token is served"
	refusalFades    invariant = "an hour later a refusal has the token replaced"
)

// check returns the invariants that p broke by what it just did.
func (p *player) check(did answer) (broken []invariant) {
	holds := func(ok bool, i invariant) {
		if !ok {
			broken = append(broken, i)
		}
	}
	v := did.verdict
	until, paused := p.m.Paused(p.now)
	may := p.mayServe()
	serves := v.Action == Serve || v.Action == ReplaceAhead

	// Never a token of nobody, a refused one, or one that has ended: whoever is told to
	// serve has one that may be good. One that a place refused stays while it is good
	// elsewhere, or while the refusal stands; one that a login brought again is another.
	if did.asked || did.refused {
		holds(!serves || may == "", servesGood)
	}

	// At most one login at a time: who is told to replace a token ahead of time is the only
	// one until that login ends.
	if did.asked && v.Action == ReplaceAhead {
		once := p.toldAhead.IsZero() || !p.now.Before(p.toldAhead.Add(p.m.Ahead))
		if p.ended() {
			holds(once, oneAheadPastEnd)
		} else {
			holds(once, oneAhead)
		}
		p.toldAhead = p.now
	}

	// Nobody waits when it need not, and no login is made in a pause.
	if did.asked {
		holds(serves == (may == ""), asksRight)
		holds(v.Action != Wait || paused && v.Until.Equal(until), asksRight)
		holds(v.Action != Replace || !paused, asksRight)
	}

	// A refusal stands for an hour at most, and only if a login would be for its sake alone.
	if did.refused && v.Action == Wait {
		holds(v.Until.After(p.now) && v.Until.Sub(p.now) <= time.Hour, waitsAnHour)
		holds(did.hadToken, waitsServed)
		holds(!did.joined, waitsForNothing)
		m := cloned(&p.m)
		holds(m.Refused(did.id, did.at, v.Until).Action != Wait, keepsItsWord)
	}

	// A token that was replaced already is not replaced once more.
	if did.refused && v.Action == Replace && did.id != p.token {
		holds(!did.hadToken, olderServed)
	}

	// Fruitless logins are few. Those of which nobody knows yet count as fruitless.
	n, all := 0, 0
	for _, l := range p.forRefusal {
		if p.now.Sub(l.asked) < time.Hour {
			all++
			if !l.welcome {
				n++
			}
		}
	}
	holds(n <= 5, fiveInVain)
	holds(all <= 5, fiveInVainOfAll)

	// A pause has a bound, by what failed and what the server asked for.
	holds(!paused || until.Sub(p.now) <= p.bound, boundedPause)

	// Never stuck: an hour later a login is allowed, what it brings is served, and no
	// refusal stands any more.
	later := p.now.Add(time.Hour)
	m := p.m // none of what follows writes into its slices
	holds(m.Asked(later).Action != Wait, notPaused)
	m.Began()
	m.LoggedIn()
	holds(m.Obtained(p.newest+1, Life{Obtained: later}, 0) && m.Asked(later).Action == Serve, newServed)
	if id := p.m.Current(); id != 0 {
		for _, at := range []Place{0, a, b} {
			m := cloned(&p.m)
			holds(m.Refused(id, at, later).Action == Replace, refusalFades)
		}
	}
	return broken
}

func TestEverySequenceOfSevenEventsKeepsTheInvariants(t *testing.T) {
	depth := 7
	if testing.Short() || raceEnabled { // it has one goroutine
		depth = 5
	}
	for _, test := range lives {
		t.Run(test.name, func(t *testing.T) {
			w := walk{shortest: make(map[invariant][]letter)}
			p := newPlayer(test.life)
			w.from(&p, nil, depth)
			p.login(order{})
			p.step(loginBringsNew)
			w.from(&p, nil, depth) // all seven with a token
			for broken, path := range w.shortest {
				t.Errorf("%q does not hold: %v", broken, path)
			}
			t.Log(w.steps, "steps")
		})
	}
}

func newPlayer(life func(time.Time) Life) player {
	return player{m: *newMachine(), life: life, now: start}
}

var lives = []struct {
	name string
	life func(now time.Time) Life
}{
	{"no end", func(now time.Time) Life { return Life{Obtained: now} }},
	{"assumed end", func(now time.Time) Life {
		return Life{Obtained: now, Due: now.Add(due), End: now.Add(day), Assumed: true}
	}},
	{"assumed end, soon", func(now time.Time) Life {
		return Life{Obtained: now, Due: now, End: now.Add(3 * time.Second), Assumed: true}
	}},
	{"soon at its end", func(now time.Time) Life {
		return Life{Obtained: now, Due: now.Add(2 * time.Second), End: now.Add(4 * time.Second)}
	}},
}

// A walk goes through all sequences as through a tree.
type walk struct {
	steps    int
	shortest map[invariant][]letter // path that breaks it
}

// from plays every sequence of up to depth letters.
func (w *walk) from(p *player, path []letter, depth int) {
	if depth == 0 {
		return
	}
	for l := range exhausted {
		q := p.clone()
		did, ok := q.step(l)
		if !ok {
			continue // the same state: a shorter sequence
		}
		w.steps++
		path := append(path, l)
		for _, broken := range q.check(did) {
			if known := w.shortest[broken]; known == nil || len(path) < len(known) {
				w.shortest[broken] = slices.Clone(path)
			}
		}
		w.from(&q, path, depth-1)
	}
}
