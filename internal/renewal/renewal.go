// Package renewal decides what is done about a token: it is served, replaced while it is
// served, replaced before anything else is sent, or no login is tried for a while.
//
// A [Machine] has no lock, no network and no clock. What happened is told to it with the
// moment, and it answers with what is to be done.
package renewal

import (
	"cmp"
	"slices"
	"time"
)

// An ID tells tokens apart: equal tokens have the same. 0 is none.
type ID uint32

// A Place is where a token was sent, a method and a path. 0 is one that is not known.
type Place uint64

// An Action is what is to be done.
type Action int

const (
	Serve        Action = iota // the current token
	ReplaceAhead               // serve it, and have it replaced meanwhile; whoever is told so does that
	Replace                    // there is none to serve: log in
	Wait                       // no login until the Verdict's moment
)

// A Verdict is an Action and, for Wait, how long.
type Verdict struct {
	Action Action
	Until  time.Time
}

// A Life is when a token was obtained, is due, and ends. Zero for no end. The moments are
// those of the wall clock, so that a machine that slept notices.
type Life struct {
	Obtained, Due, End time.Time
	Assumed            bool // the end is our guess: the API may take the token longer
}

// A Failure is why a login brought nothing.
type Failure int

const (
	Unavailable        Failure = iota // any reason that may pass
	RefusedCredentials                // the API does not accept them
	RefusedByProxy                    // something on the way refused, and perhaps not them
)

const (
	// maxPause is the longest pause after refused credentials, and maxOutagePause while logins
	// fail for another reason.
	maxPause       = time.Minute
	maxOutagePause = 30 * time.Second
	// maxAsked is the longest that a server gets by asking for it, while there is a token to
	// serve or Machine.MaxAsked is not less.
	maxAsked = time.Hour
	// minPause is the pause after the first refusal of the credentials; each doubles it.
	minPause = time.Second
	// outageTime is how long after its last failure a login still counts as failing.
	outageTime = 10 * time.Minute
	// noRefreshTime is how long a refresh endpoint that is not there is left alone.
	noRefreshTime = time.Hour

	// Logins that a refusal asks for although nothing shows that they help: maxVain in any
	// hour. The last of them is for places that were good before; for others the first few
	// are at once, and the next no sooner than vainTime after the last. Places that refuse
	// what is good elsewhere have maxElsewhere of them.
	maxVain      = 5
	maxElsewhere = 2
	vainAtOnce   = 2
	vainTime     = 20 * time.Minute
	vainHour     = time.Hour
	// maxPlaces bounds the places that are remembered.
	maxPlaces = 64
	// maxRefused bounds the list of refused tokens; a login meets one or two.
	maxRefused = 8
	// provenTime is how long a token must have lived for an unknown place to count as one
	// that was good.
	provenTime = vainTime
)

// A Machine is about one account. The zero value has no token; it must be used by one
// goroutine at a time.
type Machine struct {
	// Backoff is the wait before refresh n ahead of time, after n-1 have failed. Required.
	Backoff func(n int) time.Duration
	// Ahead is how long a replacement ahead of time may take. Required.
	Ahead time.Duration
	// MaxAsked is the longest pause that a server gets by asking for it: one answer is no
	// reason to serve nobody for an hour. If negative, it is an hour.
	MaxAsked time.Duration

	current    ID
	before     ID // that was served before it was refused
	life       Life
	accepted   ID   // the token that the API accepted last
	generation int  // how many tokens came
	refused    []ID // since the last login began

	paused      time.Time // no login before
	ahead       time.Time // no replacement ahead of time before
	noRefresh   time.Time // no refresh before
	refusals    int       // of the credentials, in a row, those by a proxy included
	denied      bool      // the API does not accept the credentials
	failures    int       // of logins for whatever reason, in a row
	began, last time.Time // the first of these failures, and the last

	granted   int         // the generation for which a refusal has asked for a login
	elsewhere Place       // the first that refused the current token, without a login
	places    []place     // the oldest first
	vain      []vainLogin // that may help nobody, the oldest first
}

// A place is what is known of a Place: the generations of the tokens that it accepted and
// refused last.
type place struct {
	at                Place
	accepted, refused int
	when              time.Time // it refused last
	bad               bool      // it has refused what was good elsewhere, and accepted nothing since
}

// A vainLogin is one that a refusal at a place asked for, and that may help nobody.
type vainLogin struct {
	when       time.Time // it was asked for last: the first may have failed
	at         Place
	elsewhere  bool // the token was good elsewhere
	generation int  // of the token that it replaces
}

// Asked says what is done for somebody who needs a token.
func (m *Machine) Asked(now time.Time) Verdict {
	switch {
	case m.current == 0, !m.serves(now):
		if now.Before(m.paused) {
			return Verdict{Wait, m.paused}
		}
		return Verdict{Action: Replace}
	case m.fresh(now), now.Before(m.ahead):
		return Verdict{Action: Serve}
	}
	m.ahead = now.Add(m.Ahead)
	return Verdict{Action: ReplaceAhead}
}

// fresh reports whether the token is due neither by its end nor because the clock was set
// back to before it was obtained.
func (m *Machine) fresh(now time.Time) bool {
	return !now.Before(m.life.Obtained) && (m.life.Due.IsZero() || now.Before(m.life.Due))
}

// serves reports whether the current token has not ended, or is served past an assumed end:
// logins fail, and not because the credentials are refused.
func (m *Machine) serves(now time.Time) bool {
	ended := !m.life.End.IsZero() && !now.Before(m.life.End)
	return !ended || m.life.Assumed && m.failing(now) && !m.denied
}

// Current is the token that is served, or 0.
func (m *Machine) Current() ID { return m.current }

// Generation tells the tokens that came apart, also one that came twice.
func (m *Machine) Generation() int { return m.generation }

// Paused returns the moment before which no login is tried; ok is false if there is none.
func (m *Machine) Paused(now time.Time) (until time.Time, ok bool) {
	return m.paused, now.Before(m.paused)
}

// Refused says what is done about a token that the API did not accept at a place: if that
// is not the current one any more, Serve that; Replace it; or Wait, which means that the
// refusal stands, since no login is likely to change it.
func (m *Machine) Refused(id ID, at Place, now time.Time) Verdict {
	switch {
	case m.current != 0 && id != m.current && m.serves(now):
		return Verdict{Action: Serve}
	case id == 0 || id != m.current:
		m.askedAgain(now)
		m.noteRefused(id)
		return Verdict{Action: Replace}
	}
	p := m.place(at)
	here, elsewhere := p.accepted == m.generation && p.refused != m.generation, m.accepted == id
	switch {
	case m.granted == m.generation, !m.serves(now): // it is replaced anyway
		m.askedAgain(now)
	case here: // it was good at this very place: somebody has ended it
	default:
		if at != 0 && elsewhere && p.refused != 0 && !p.bad {
			p.bad = true
			m.keep(p)
		}
		if until := m.vainUntil(p, elsewhere, now); now.Before(until) {
			m.elsewhere = cmp.Or(m.elsewhere, at)
			return Verdict{Wait, until}
		}
		m.vain = append(m.vain, vainLogin{now, at, elsewhere, m.generation})
	}
	// One that others took as well may be good for them, until a second place refuses it.
	others := m.granted != m.generation && slices.ContainsFunc(m.places, func(other place) bool {
		return other.at != at && other.accepted == m.generation
	})
	if here && !others || !elsewhere && !p.bad {
		m.current, m.before = 0, id
	}
	m.granted = m.generation
	p.refused, p.when = m.generation, now
	m.keep(p)
	m.noteRefused(id)
	return Verdict{Action: Replace}
}

// askedAgain takes note of a login that was asked for before.
func (m *Machine) askedAgain(now time.Time) {
	if n := len(m.vain); n > 0 && m.vain[n-1].generation == m.generation {
		m.vain[n-1].when = now
	}
}

// vainUntil is before when there is no other login that may help nobody, for a refusal of
// the current token at p, which may be good elsewhere.
func (m *Machine) vainUntil(p place, elsewhere bool, now time.Time) (until time.Time) {
	m.vain = slices.DeleteFunc(m.vain, func(l vainLogin) bool { return now.Sub(l.when) >= vainHour })
	// most lets there be so many of some logins in an hour.
	most := func(n int, of []vainLogin) {
		if len(of) >= n {
			until = latest(until, of[len(of)-n].when.Add(vainHour))
		}
	}
	most(maxVain, m.vain)
	likely := p.accepted != 0 && !p.bad || m.elsewhere != 0 && m.elsewhere != p.at // that somebody has ended it
	switch {
	case p.at == 0: // nobody says what is accepted there
		likely = now.Sub(m.life.Obtained) >= provenTime
	case elsewhere && p.bad: // it refuses what others take
		until = latest(until, p.when.Add(vainTime))
		most(maxElsewhere, slices.DeleteFunc(slices.Clone(m.vain), func(l vainLogin) bool { return !l.elsewhere && l.at != p.at }))
	}
	if !likely {
		most(maxVain-1, m.vain)
		if n := len(m.vain); n >= vainAtOnce {
			until = latest(until, m.vain[n-1].when.Add(vainTime))
		}
	}
	return until
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Accepted takes note that the API took a token at a place.
func (m *Machine) Accepted(id ID, at Place) {
	if id == 0 || id != m.current {
		return // of an earlier one it says nothing
	}
	m.accepted = id
	p := m.place(at)
	if p.refused == m.generation {
		return // the place takes it now and then
	}
	m.vain = slices.DeleteFunc(m.vain, func(l vainLogin) bool { return l.at == at }) // they were not
	m.keep(place{at: at, accepted: m.generation})
}

// place returns what is known of a place.
func (m *Machine) place(at Place) place {
	for _, p := range m.places {
		if p.at == at {
			return p
		}
	}
	return place{at: at}
}

// keep remembers p as the newest. Of too many places the oldest good one is forgotten, or
// the oldest if most of them refuse.
func (m *Machine) keep(p place) {
	m.places = append(slices.DeleteFunc(m.places, func(other place) bool { return other.at == p.at }), p)
	if len(m.places) <= maxPlaces {
		return
	}
	good := slices.DeleteFunc(slices.Clone(m.places), func(p place) bool { return p.bad || p.accepted == 0 })
	i := 0
	if len(good) > maxPlaces/2 {
		i = slices.Index(m.places, good[0])
	}
	m.places = slices.Delete(m.places, i, i+1)
}

// noteRefused keeps a login that is under way from bringing a token back.
func (m *Machine) noteRefused(id ID) {
	if !slices.Contains(m.refused, id) {
		m.refused = append(m.refused, id)
		m.refused = m.refused[max(len(m.refused)-maxRefused, 0):]
	}
}

// Began takes note of a login that begins: what was refused before, it may bring.
func (m *Machine) Began() { m.refused = nil }

// Attempts is how many attempts a login has, of n: after one that failed it is one.
func (m *Machine) Attempts(n int) int {
	if m.failures > 0 {
		return 1
	}
	return n
}

func (m *Machine) failing(now time.Time) bool {
	return m.failures > 0 && now.Sub(m.last) < outageTime
}

// Obtained takes note of a token that came, in place of a refused one if that is not 0. It
// is not kept, and false is returned, if it was refused while it was under way. The same
// token once more is kept: by that the next refusal is judged.
func (m *Machine) Obtained(id ID, life Life, inPlaceOf ID) (kept bool) {
	again := id == inPlaceOf || m.current == 0 && id == m.before
	if slices.Contains(m.refused, id) && id != inPlaceOf {
		return false
	}
	if again {
		m.accepted = 0 // what it was worth before, the refusal has undone
	}
	if again || id != m.current {
		m.generation++
	}
	m.current, m.life = id, life
	m.elsewhere = 0
	m.failures = 0
	m.ahead = time.Time{}
	return true
}

// LoggedIn takes note that the API accepted the credentials.
func (m *Machine) LoggedIn() {
	m.refusals, m.failures, m.denied = 0, 0, false
	m.paused = time.Time{}
}

// Failed takes note of a login that brought nothing. asked is how long the server wants
// to be left alone; 0 if it does not say.
//
// While logins fail, the pause between two grows with the time that this lasts: it is half
// of that, and at most half a minute.
func (m *Machine) Failed(why Failure, asked time.Duration, now time.Time) {
	asked = min(asked, maxAsked)
	pause := asked
	if m.MaxAsked >= 0 {
		pause = min(asked, m.MaxAsked)
	}
	if !m.failing(now) {
		m.failures, m.began = 0, now
	}
	m.failures++
	m.last = now
	n := m.refusals
	switch why {
	case Unavailable:
		pause = max(pause, min(now.Sub(m.began)/2, maxOutagePause))
	case RefusedByProxy: // nobody's word on the credentials, unless it comes again
		n--
		fallthrough
	case RefusedCredentials:
		m.denied = m.denied || why == RefusedCredentials
		if n >= 0 {
			pause = max(pause, refusalPause(n))
		}
		m.refusals++
	}
	m.paused = now.Add(pause)
	m.ahead = now.Add(max(pause, asked, m.Backoff(m.failures)))
}

// refusalPause is how long no login is tried after refused credentials, when n refusals were
// before.
func refusalPause(n int) time.Duration { return min(minPause<<min(n, 8), maxPause) }

// NextPause is how long no login is tried once the credentials are refused now.
func (m *Machine) NextPause() time.Duration { return refusalPause(m.refusals) }

// OthersPause takes note that others who share the account do not try a login, for as long
// as is left, since the credentials were refused. It reports whether this one waits as well,
// no longer than after a refusal of its own: only if that has met one, since its credentials
// may be others. One more refusal doubles the next pause, whoever met it.
func (m *Machine) OthersPause(now time.Time, left time.Duration) (waits bool) {
	m.refusals++
	if !m.denied {
		return false
	}
	m.paused = latest(m.paused, now.Add(min(left, maxPause)))
	m.ahead = latest(m.ahead, m.paused)
	return true
}

// LookAgain takes note that somebody else is at work: a replacement ahead of time is looked
// for again at a moment, but in no pause.
func (m *Machine) LookAgain(at time.Time) { m.ahead = latest(at, m.paused) }

// NoRefresh takes note that there is no refresh endpoint.
func (m *Machine) NoRefresh(now time.Time) { m.noRefresh = now.Add(noRefreshTime) }

// Refreshes reports whether a refresh is worth a try.
func (m *Machine) Refreshes(now time.Time) bool { return !now.Before(m.noRefresh) }

// Allow ends every reason not to log in.
func (m *Machine) Allow() {
	m.paused, m.ahead, m.noRefresh = time.Time{}, time.Time{}, time.Time{}
	m.refusals, m.failures, m.denied = 0, 0, false
	m.granted, m.elsewhere = 0, 0
	m.places, m.vain = nil, nil
}

// Inherit makes m go on from another of the same account: its token, and what the API said
// of that.
func (m *Machine) Inherit(from *Machine) {
	m.current, m.life, m.accepted, m.generation = from.current, from.life, from.accepted, from.generation
	m.refused, m.noRefresh = from.refused, from.noRefresh
}
