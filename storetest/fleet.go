package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth"
)

// Leased is what a store whose lock is a lease has in its test, by a method that the test
// adds to it.
type Leased interface {
	// EndLease makes the lock of k free while its holder believes to have it, as when
	// that sleeps for longer than the lease. It does nothing if nobody has it.
	EndLease(k ampauth.StoreKey)
}

var leaseChecks = []check{
	{"a lock whose lease has ended can be taken", lostLease},
	{"unlocking after the lease leaves the lock to the next holder", unlockAfterLease},
	{"Save after another had the lock is ErrSuperseded, and saves nothing", supersededSave},
	{"Save after the lease succeeds while nobody had the lock since", unfollowedSave},
	{"Save without the lock saves if there is no token, and is ErrSuperseded if there is one", saveWithoutLock},
}

var pauseChecks = []check{
	{"a pause is seen until it ends", pauseEnds},
	{"a pause is seen by those who share the store", sharedPause},
	{"the longer of two pauses counts", longerPause},
	{"a pause belongs to its key alone", isolatedPause},
}

var watchChecks = []check{
	{"Watch calls once it listens, and after each Save", watchCalls},
	{"Watch of a key hears nothing of another", isolatedWatch},
	{"Watch ends with its context", watchEnds},
}

// leased returns the store as a Locker with a lease, and how to end that; it skips the
// check if the test offers no way.
func (s *subject) leased() (ampauth.Locker, func(ampauth.StoreKey)) {
	s.Helper()
	l := s.locker()
	leased, ok := s.store.(Leased)
	if !ok {
		s.Skip("the store has no EndLease: its lock is no lease, or the test does not say how to end one")
	}
	return l, leased.EndLease
}

// other returns a second handle, and skips the check if that shares nothing.
func (s *subject) other(k ampauth.StoreKey) ampauth.TokenStore {
	s.Helper()
	token, other := s.token(40), s.newStore()
	s.save(k, token)
	if t, err := other.Load(s.Context(), k); s.failed(err) || !t.Value.Equal(token.Value) {
		s.Skip("newStore makes stores that share nothing")
	}
	s.must("DeleteIf", s.store.DeleteIf(s.Context(), k, token.Value))
	return other
}

// wantSuperseded fails unless a Save is refused for a later holder's sake.
func (s *subject) wantSuperseded(store ampauth.TokenStore, k ampauth.StoreKey) {
	s.Helper()
	if err := store.Save(s.Context(), k, s.token(40)); !s.failed(err) || !errors.Is(err, ampauth.ErrSuperseded) {
		s.Error("Save returned no error that Is ErrSuperseded")
	}
}

func lostLease(s *subject) {
	l, endLease := s.leased()
	k := s.key("a")
	defer s.lock(l, k)()
	s.wantHeld(l, k, true)
	endLease(k)
	s.lock(l, k)()
}

func unlockAfterLease(s *subject) {
	l, endLease := s.leased()
	k := s.key("a")
	other := s.other(k).(ampauth.Locker)
	unlock := s.lock(l, k)
	endLease(k)
	next := s.lock(other, k)
	defer next()
	unlock()
	s.wantHeld(l, k, true)
}

func supersededSave(s *subject) {
	l, endLease := s.leased()
	k := s.key("a")
	other := s.other(k)
	defer s.lock(l, k)()
	endLease(k)
	unlock := s.lock(other.(ampauth.Locker), k)
	s.wantSuperseded(s.store, k) // also while the next holder has saved nothing yet
	s.wantMiss(k)
	theirs := s.token(40)
	s.must("Save", other.Save(s.Context(), k, theirs))
	s.wantSuperseded(s.store, k)
	unlock()
	s.wantSuperseded(s.store, k)
	unlock = s.lock(other.(ampauth.Locker), k) // a fence that counted anew would meet the first one's
	s.wantSuperseded(s.store, k)
	unlock()
	s.wantSuperseded(s.store, k)
	s.want(k, theirs)
}

func unfollowedSave(s *subject) {
	l, endLease := s.leased()
	k := s.key("a")
	s.save(k, s.token(40))
	defer s.lock(l, k)()
	endLease(k)
	token := s.token(40)
	s.must("Save", s.store.Save(s.Context(), k, token))
	s.want(k, token)
}

func saveWithoutLock(s *subject) {
	l, _ := s.leased()
	k := s.key("a")
	other := s.other(k)
	first := s.token(40)
	s.must("Save", other.Save(s.Context(), k, first))
	s.want(k, first)
	s.wantSuperseded(other, k)
	unlock := s.lock(l, k)
	s.wantSuperseded(other, k) // the lock is somebody else's
	unlock()
	s.wantSuperseded(s.store, k) // and was this one's
	s.want(k, first)
}

func (s *subject) pauser() ampauth.Pauser {
	s.Helper()
	p, ok := s.store.(ampauth.Pauser)
	if !ok {
		s.Skip("the store is no Pauser")
	}
	return p
}

// wantPaused fails unless the pause goes on for more than least and at most most.
func (s *subject) wantPaused(p ampauth.Pauser, k ampauth.StoreKey, least, most time.Duration) {
	s.Helper()
	left, err := p.Paused(s.Context(), k)
	s.must("Paused", err)
	if left < least || left > most {
		s.Errorf("the pause goes on for %v, want %v to %v", left, least, most)
	}
}

func pauseEnds(s *subject) {
	p, k := s.pauser(), s.key("a")
	s.wantPaused(p, k, 0, 0)
	s.must("Pause", p.Pause(s.Context(), k, 50*time.Millisecond))
	time.Sleep(100 * time.Millisecond)
	s.wantPaused(p, k, 0, 0)
	s.must("Pause", p.Pause(s.Context(), k, time.Hour))
	s.wantPaused(p, k, time.Hour-patience, time.Hour)
}

func sharedPause(s *subject) {
	p, k := s.pauser(), s.key("a")
	other := s.other(k).(ampauth.Pauser)
	s.must("Pause", p.Pause(s.Context(), k, time.Hour))
	s.wantPaused(other, k, time.Hour-patience, time.Hour)
}

func longerPause(s *subject) {
	p, k := s.pauser(), s.key("a")
	for _, d := range []time.Duration{time.Hour, time.Minute, 2 * time.Hour, time.Hour} {
		s.must("Pause", p.Pause(s.Context(), k, d))
	}
	s.wantPaused(p, k, 2*time.Hour-patience, 2*time.Hour)
}

func isolatedPause(s *subject) {
	p := s.pauser()
	s.must("Pause", p.Pause(s.Context(), s.key("a"), time.Hour))
	s.wantPaused(p, s.key("b"), 0, 0)
}

// A watch is a Watch that runs until the check ends it.
type watch struct {
	s      *subject
	calls  atomic.Int32
	cancel context.CancelFunc
	ended  chan error
}

// watch begins a Watch and waits for its first call.
func (s *subject) watch(k ampauth.StoreKey) *watch {
	s.Helper()
	watcher, ok := s.store.(ampauth.Watcher)
	if !ok {
		s.Skip("the store is no Watcher")
	}
	ctx, cancel := context.WithCancel(s.Context())
	w := &watch{s: s, cancel: cancel, ended: make(chan error, 1)}
	go func() { w.ended <- watcher.Watch(ctx, k, func() { w.calls.Add(1) }) }()
	w.wantCall(0)
	return w
}

// wantCall stops the check unless there are more calls than there were.
func (w *watch) wantCall(before int32) {
	w.s.Helper()
	for began := time.Now(); w.calls.Load() <= before; time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			w.cancel()
			w.s.Fatal("Watch does not call changed")
		}
	}
}

func (w *watch) end() {
	w.s.Helper()
	w.cancel()
	select {
	case err := <-w.ended:
		w.s.failed(err)
	case <-time.After(patience):
		w.s.Fatal("Watch does not end with its context")
	}
}

func watchCalls(s *subject) {
	k := s.key("a")
	w := s.watch(k)
	for range 3 {
		time.Sleep(20 * time.Millisecond) // what the last one caused is over
		before := w.calls.Load()
		token := s.token(40)
		s.save(k, token)
		w.wantCall(before)
		s.want(k, token)
	}
	w.end()
}

func isolatedWatch(s *subject) {
	w := s.watch(s.key("a"))
	time.Sleep(20 * time.Millisecond)
	before := w.calls.Load()
	s.save(s.key("b"), s.token(40))
	time.Sleep(100 * time.Millisecond)
	if w.calls.Load() != before {
		s.Error("Watch calls changed for a token of another key")
	}
	w.end()
}

func watchEnds(s *subject) {
	k := s.key("a")
	w := s.watch(k)
	w.end()
	before := w.calls.Load()
	s.save(k, s.token(40))
	time.Sleep(50 * time.Millisecond)
	if w.calls.Load() != before {
		s.Error("Watch calls changed after its end")
	}
}
