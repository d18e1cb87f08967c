package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth"
)

var lockChecks = []check{
	{"a lock has one holder", exclusion},
	{"a lock has one holder among the handles on one store", exclusionOfHandles},
	{"TryLock does not wait", tryWhileHeld},
	{"Lock gives up when its context ends", lockGivesUp},
	{"Lock ends its wait when the lock is free", lockGoesOn},
	{"unlocking twice does not unlock another's lock", unlockTwice},
	{"locks of different keys do not wait for each other", independentLocks},
	{"no other method waits for the lock", lockIsForLogins},
}

// locker returns the store as a Locker, and skips the check if it is none.
func (s *subject) locker() ampauth.Locker {
	s.Helper()
	l, ok := s.store.(ampauth.Locker)
	if !ok {
		s.Skip("the store is no Locker")
	}
	return l
}

// lock takes a lock that is free, or soon will be.
func (s *subject) lock(l ampauth.Locker, k ampauth.StoreKey) (unlock func()) {
	s.Helper()
	var err error
	s.promptly("Lock of a free lock", func() { unlock, err = l.Lock(s.Context(), k) })
	s.must("Lock", err)
	return unlock
}

// wantHeld fails unless TryLock finds that somebody has the lock, or nobody.
func (s *subject) wantHeld(l ampauth.Locker, k ampauth.StoreKey, held bool) {
	s.Helper()
	var unlock func()
	var ok bool
	var err error
	s.promptly("TryLock", func() { unlock, ok, err = l.TryLock(s.Context(), k) })
	s.must("TryLock", err)
	if ok {
		unlock()
	}
	if ok == held {
		s.Errorf("TryLock took the lock: %t, want %t", ok, !held)
	}
}

func exclusion(s *subject) {
	l, k := s.locker(), s.key("a")
	var holders atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				unlock, err := l.Lock(s.Context(), k)
				if s.failed(err) {
					s.Error("Lock failed")
					return
				}
				if holders.Add(1) != 1 {
					s.Error("two hold the lock")
				}
				time.Sleep(time.Millisecond) // long enough for another to get in
				holders.Add(-1)
				unlock()
			}
		})
	}
	all.Wait()
}

func exclusionOfHandles(s *subject) {
	l, k, token := s.locker(), s.key("a"), s.token(40)
	s.save(k, token)
	other := s.newStore()
	if t, err := other.Load(s.Context(), k); s.failed(err) || !t.Value.Equal(token.Value) {
		s.Skip("newStore makes stores that share nothing")
	}
	unlock := s.lock(l, k)
	defer unlock()
	s.wantHeld(other.(ampauth.Locker), k, true)
	unlock()
	s.wantHeld(other.(ampauth.Locker), k, false)
}

func tryWhileHeld(s *subject) {
	l, k := s.locker(), s.key("a")
	s.wantHeld(l, k, false)
	unlock := s.lock(l, k)
	defer unlock()
	s.wantHeld(l, k, true)
	unlock()
	s.wantHeld(l, k, false)
}

func lockGivesUp(s *subject) {
	l, k := s.locker(), s.key("a")
	unlock := s.lock(l, k)
	defer unlock() // also ends a Lock that does not give up
	for _, wait := range []time.Duration{0, 50 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(s.Context(), wait)
		defer cancel()
		var second func()
		var err error
		s.promptly("Lock whose context has ended", func() { second, err = l.Lock(ctx, k) })
		switch {
		case !s.failed(err):
			second()
			s.Error("Lock took a lock that another has")
		case errors.Is(err, ampauth.ErrNoToken):
			s.Error("the error of Lock Is ErrNoToken")
		}
	}
	s.wantHeld(l, k, true)
	unlock()
	s.lock(l, k)() // who gave up has not taken it after all
}

func lockGoesOn(s *subject) {
	l, k := s.locker(), s.key("a")
	unlock := s.lock(l, k)
	waiting := time.AfterFunc(30*time.Millisecond, unlock)
	defer waiting.Stop()
	second := s.lock(l, k)
	second()
}

func unlockTwice(s *subject) {
	l, k := s.locker(), s.key("a")
	unlock := s.lock(l, k)
	unlock()
	next := s.lock(l, k)
	defer next()
	unlock()
	s.wantHeld(l, k, true)
}

func independentLocks(s *subject) {
	l := s.locker()
	defer s.lock(l, s.key("a"))()
	s.wantHeld(l, s.key("b"), false)
	s.lock(l, s.key("b"))()
}

func lockIsForLogins(s *subject) {
	l, k, token := s.locker(), s.key("a"), s.token(40)
	defer s.lock(l, k)()
	var err error
	s.promptly("Save under the lock", func() { err = s.store.Save(s.Context(), k, token) })
	s.must("Save", err)
	s.promptly("Load under the lock", func() { _, err = s.store.Load(s.Context(), k) })
	s.must("Load", err)
	s.promptly("DeleteIf under the lock", func() { err = s.store.DeleteIf(s.Context(), k, token.Value) })
	s.must("DeleteIf", err)
}
