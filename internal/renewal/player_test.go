package renewal

import (
	"slices"
	"time"
)

// A letter is one thing that may happen to a player.
type letter byte

// The first few are the alphabet of the exhaustion, the others are for the fuzzer.
const (
	somebodyAsks letter = iota
	loginBringsNew
	loginBringsSame
	loginFails
	credentialsRefused
	acceptedAtA
	refusedAtA
	refusedAtB
	nextLimit
	oneSecond
	exhausted // those before are

	acceptedAtB = iota - 1
	acceptedAtC
	refusedAtC
	refusedNowhere // at a place that is not known
	olderRefused
	proxyRefuses
	loginFailsAsking // to be left alone for three minutes
	refreshNotThere
	sixMinutes
	othersPauseLong
	anyLetter // those before are all
)

func (l letter) String() string {
	return [...]string{"asks", "new", "same", "fails", "credentials", "accepted A", "refused A", "refused B", "next limit", "1s",
		"accepted B", "accepted C", "refused C", "refused nowhere", "older refused", "proxy", "fails asking", "no refresh", "6m", "others pause"}[l]
}

// A player does with a machine what a manager does: a login that it was told to make is
// under way until a letter ends it. It keeps a record of its own, for check.
type player struct {
	m       Machine
	life    func(now time.Time) Life // of the tokens that come
	now     time.Time
	newest  ID    // the token that came last
	flying  bool  // a login is under way
	flight  order // it
	waiting order // the one after it, if a refusal has asked for one

	token      ID            // that was kept last
	tokenLife  Life          //
	seen       [4]sighting   // what the places said of it first
	welcome    [4]bool       // the place accepted a token last
	good       bool          // one of them accepted it
	gone       bool          // it is not to be served any more
	failed     bool          // the last login has failed,
	failedAt   time.Time     // then
	denied     bool          // and the credentials were refused
	spare      bool          // the token was refused by one place, and others took it
	justified  bool          // it had ended when it was refused, or a place had accepted it: it is replaced anyway
	toldAhead  time.Time     // to replace it, and that login has not ended
	forRefusal []login       // that refusals asked for; never changed in place
	bound      time.Duration // of the pause
}

// An order is what a login is for: to replace a refused token, if that is not 0.
type order struct {
	rejected ID
	at       Place
	asked    time.Time
	vain     bool // it was not accepted at the place that refused it
	welcome  bool // but another was before, and it was accepted at another place
}

// A login is one that a refusal asked for of a token that was not accepted there.
type login struct {
	asked     time.Time
	at        Place
	welcome   bool
	successor ID
}

// A sighting is the first thing that a place said of a token.
type sighting byte

const (
	unseen sighting = iota
	wasAccepted
	wasRefused
)

// An answer is what the machine said to a letter.
type answer struct {
	asked, refused bool // which of them the verdict is for
	verdict        Verdict
	id             ID
	at             Place
	joined         bool // a login that replaces the token was under way
	hadToken       bool // there was a token to serve
}

// clone copies the machine so far that what p does from now on is not seen by the original.
func (p *player) clone() player {
	q := *p
	q.m = cloned(&p.m)
	return q
}

func cloned(m *Machine) Machine {
	n := *m
	n.places, n.vain, n.refused = slices.Clone(m.places), slices.Clone(m.vain), slices.Clip(m.refused)
	return n
}

// step plays a letter; ok is false if there is nothing to play.
func (p *player) step(l letter) (did answer, ok bool) {
	switch l {
	case somebodyAsks:
		did = answer{asked: true, verdict: p.m.Asked(p.now)}
		if a := did.verdict.Action; a == Replace || a == ReplaceAhead {
			p.login(order{})
		}
		return did, true
	case loginBringsNew:
		return did, p.land(func() { p.bring(p.newest + 1) })
	case loginBringsSame:
		return did, p.newest != 0 && p.land(func() { p.bring(p.newest) })
	case loginFails:
		return did, p.land(func() { p.fail(Unavailable, 0) })
	case loginFailsAsking:
		return did, p.land(func() { p.fail(Unavailable, 3*time.Minute) })
	case credentialsRefused:
		return did, p.land(func() { p.fail(RefusedCredentials, 0) })
	case proxyRefuses:
		return did, p.land(func() { p.fail(RefusedByProxy, 0) })
	case acceptedAtA, acceptedAtB, acceptedAtC:
		return did, p.accept(map[letter]Place{acceptedAtA: a, acceptedAtB: b, acceptedAtC: c}[l])
	case refusedAtA:
		return p.refuse(p.token, a)
	case refusedAtB:
		return p.refuse(p.token, b)
	case refusedAtC:
		return p.refuse(p.token, c)
	case refusedNowhere:
		return p.refuse(p.token, 0)
	case olderRefused:
		return p.refuse(max(p.token, 1)-1, a)
	case refreshNotThere:
		p.m.NoRefresh(p.now)
		return did, true
	case nextLimit:
		next := p.nextLimit()
		ok = !next.IsZero()
		if ok {
			p.now = next
		}
		return did, ok
	case oneSecond:
		p.now = p.now.Add(time.Second)
	case sixMinutes:
		p.now = p.now.Add(6 * time.Minute)
	case othersPauseLong:
		if !p.flying || !p.m.OthersPause(p.now, time.Hour) {
			return did, p.flying
		}
		p.bound = max(p.bound, time.Minute)
		return did, p.land(p.leaveItToOthers)
	}
	return did, true
}

// nextLimit is the next moment at which the machine may change its mind by itself; zero if
// there is none.
func (p *player) nextLimit() (next time.Time) {
	look := func(at time.Time) {
		if at.After(p.now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	m := &p.m
	look(m.paused)
	look(m.ahead)
	look(m.noRefresh)
	if m.current != 0 {
		look(m.life.Due)
		look(m.life.End)
	}
	if m.failures > 0 {
		look(m.last.Add(outageTime))
	}
	for _, p := range m.places {
		if p.refused != 0 {
			look(p.when.Add(vainTime))
		}
	}
	for _, t := range m.vain {
		look(t.when.Add(vainTime))
		look(t.when.Add(vainHour))
	}
	return next
}

// login begins a login, or joins the one that is under way if that is for the same.
func (p *player) login(o order) {
	switch {
	case !p.flying:
		if _, paused := p.m.Paused(p.now); !paused {
			p.begin(o)
		}
	case o.rejected != 0 && p.flight.rejected == 0:
		p.waiting = o
	}
}

func (p *player) begin(o order) {
	p.m.Began()
	p.flying, p.flight = true, o
	if o.vain {
		p.forRefusal = append(slices.Clip(p.forRefusal), login{asked: o.asked, at: o.at, welcome: o.welcome})
	}
}

// land ends the login that is under way; ok is false if none is.
func (p *player) land(end func()) (ok bool) {
	if !p.flying {
		return false
	}
	end()
	o := p.waiting
	p.flying, p.flight, p.waiting, p.toldAhead = false, order{}, order{}, time.Time{}
	// Nobody needs the one after it if it has brought another token.
	if o.rejected != 0 && (p.m.Current() == 0 || p.m.Current() == o.rejected) {
		p.login(o)
	}
	return true
}

func (p *player) bring(id ID) {
	p.newest = max(p.newest, id)
	p.m.LoggedIn()
	p.failed, p.denied = false, false
	life, none := p.life(p.now), p.m.Current() == 0
	kept := p.m.Obtained(id, life, p.flight.rejected)
	if kept {
		if none || id != p.token || id == p.flight.rejected {
			p.seen, p.good, p.justified = [4]sighting{}, false, false
		}
		p.token, p.tokenLife, p.gone = id, life, false
	}
	if p.flight.vain {
		p.forRefusal = slices.Clone(p.forRefusal)
		p.forRefusal[len(p.forRefusal)-1].successor = id
	}
}

func (p *player) fail(why Failure, asked time.Duration) {
	p.m.Failed(why, asked, p.now)
	p.failed, p.failedAt, p.denied = true, p.now, p.denied || why == RefusedCredentials
	p.bound = map[Failure]time.Duration{Unavailable: 30 * time.Second, RefusedCredentials: time.Minute, RefusedByProxy: time.Minute}[why]
	p.bound = max(p.bound, min(asked, p.m.MaxAsked))
	if p.flight.vain { // it has brought nothing
		p.forRefusal = p.forRefusal[:len(p.forRefusal)-1]
	}
}

// leaveItToOthers ends a login before it has asked anybody.
func (p *player) leaveItToOthers() {
	if p.flight.rejected == 0 {
		p.m.LookAgain(p.now.Add(3 * time.Second))
	}
	if p.flight.vain {
		p.forRefusal = p.forRefusal[:len(p.forRefusal)-1]
	}
}

func (p *player) accept(at Place) (ok bool) {
	if p.m.Current() == 0 {
		return false
	}
	p.m.Accepted(p.token, at)
	p.good = true
	if p.seen[at] == unseen {
		p.seen[at], p.welcome[at] = wasAccepted, true
	}
	// A login whose token is accepted by the place that asked for it was not fruitless.
	p.forRefusal = slices.DeleteFunc(slices.Clone(p.forRefusal), func(l login) bool {
		return l.at == at && p.seen[at] == wasAccepted // in the end they helped
	})
	return true
}

func (p *player) refuse(id ID, at Place) (did answer, ok bool) {
	if id == 0 {
		return did, false
	}
	did = answer{refused: true, id: id, at: at,
		hadToken: p.m.Current() != 0 && p.mayServe() == "",
		joined:   p.flying && p.flight.rejected != 0 || p.waiting.rejected != 0,
	}
	did.verdict = p.m.Refused(id, at, p.now)
	if did.verdict.Action != Replace {
		return did, true
	}
	o := order{rejected: id, at: at, asked: p.now}
	if id == p.token && !p.gone {
		p.justified = p.justified || !did.hadToken || p.seen[at] == wasAccepted
		o.vain = !p.justified
		o.welcome = o.vain && p.good && p.welcome[at]
		p.spare = !slices.Contains(p.seen[:], wasRefused)
		p.spare = p.spare && slices.ContainsFunc([]Place{a, b, c}, func(other Place) bool { return other != at && p.seen[other] == wasAccepted })
		// The word of a place that has refused what was good elsewhere is worth nothing.
		p.gone = (!p.good || p.seen[at] == wasAccepted) && !p.m.place(at).bad
		p.gone = p.gone && !p.spare // others took it
		p.seen[at], p.welcome[at] = wasRefused, false
	}
	p.login(o)
	return did, true
}

func (p *player) ended() bool {
	return !p.tokenLife.End.IsZero() && !p.now.Before(p.tokenLife.End)
}

// mayServe says why the token may not be served, "" if it may.
func (p *player) mayServe() string {
	ended := p.ended()
	switch {
	case p.token == 0 || p.m.Current() == 0:
		return "there is none"
	case p.gone:
		return "it was refused"
	case ended && !p.tokenLife.Assumed:
		return "it has ended"
	case ended && !(p.failed && p.now.Sub(p.failedAt) < outageTime):
		return "it has ended, and no login has failed"
	case ended && p.denied:
		return "it has ended, and the credentials are refused"
	}
	return ""
}
