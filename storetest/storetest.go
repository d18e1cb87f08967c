// Package storetest says whether an [ampauth.TokenStore] keeps to its contract:
//
//	func TestStoreKeepsToTheContract(t *testing.T) {
//		storetest.Run(t, func() ampauth.TokenStore { return &Store{Address: server.Addr()} })
//	}
package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// Run runs a subtest for each claim of the contracts of [ampauth.TokenStore] and,
// if the store is one, [ampauth.Locker], [ampauth.Pauser], [ampauth.Watcher] and [Leased].
// What a store does not offer is skipped, with a sentence that says so.
//
// Whatever is saved is saved under the lock, since a store whose lock is a lease may
// refuse it otherwise.
//
// Each call of newStore returns a store of its own or another handle on a common
// one. Keys and tokens are new in each run, and what is saved is not cleaned up.
func Run(t *testing.T, newStore func() ampauth.TokenStore) {
	for _, c := range allChecks() {
		t.Run(c.claim, func(t *testing.T) { c.run(newSubject(t, newStore)) })
	}
}

func allChecks() []check {
	return slices.Concat(storeChecks, lockChecks, leaseChecks, pauseChecks, watchChecks)
}

// A check fails its subject's test unless the store does what the claim says.
type check struct {
	claim string
	run   func(*subject)
}

var storeChecks = []check{
	{"a key without a token is a miss", missOnEmpty},
	{"a saved token is loaded as it was", roundTrip},
	{"a saved token replaces the one before", overwrite},
	{"a token belongs to its key alone", isolation},
	{"DeleteIf removes the rejected token", deleteEqual},
	{"DeleteIf leaves any other token", deleteOther},
	{"DeleteIf of no token is no error", deleteNone},
	{"DeleteIf leaves a token that is saved meanwhile", deleteBesideSave},
	{"Load beside Saves returns one of the tokens, whole", loadBesideSaves},
	{"an ended context ends a call, which then has failed or done its work", endedContext},
}

func missOnEmpty(s *subject) { s.wantMiss(s.key("a")) }

func roundTrip(s *subject) {
	for i, length := range []int{1, 40, 4096} {
		token := s.token(length)
		k := s.key(fmt.Sprint(i))
		s.save(k, token)
		s.want(k, token)

		token.ExpiresAt = time.Time{} // no end
		s.save(k, token)
		s.want(k, token)
	}
}

func overwrite(s *subject) {
	k := s.key("a")
	s.save(k, s.token(4000))
	shorter := s.token(40)
	s.save(k, shorter)
	s.want(k, shorter)
}

func isolation(s *subject) {
	a, b := s.key("a"), s.key("b")
	elsewhere, err := ampauth.NewStoreKey("https://amp.test/other", s.user+"a")
	s.must("NewStoreKey", err)
	tokenA, tokenB := s.token(40), s.token(40)
	s.save(a, tokenA)
	s.wantMiss(b)
	s.wantMiss(elsewhere)
	s.save(b, tokenB)
	s.want(a, tokenA)
	s.must("DeleteIf", s.store.DeleteIf(s.Context(), b, tokenB.Value))
	s.want(a, tokenA)
}

func deleteEqual(s *subject) {
	k, token := s.key("a"), s.token(40)
	s.save(k, token)
	s.must("DeleteIf", s.store.DeleteIf(s.Context(), k, token.Value))
	s.wantMiss(k)
}

func deleteOther(s *subject) {
	k, token := s.key("a"), s.token(40)
	s.save(k, token)
	for _, rejected := range []ampauth.Secret{s.token(40).Value, s.token(4000).Value, {}} {
		s.must("DeleteIf", s.store.DeleteIf(s.Context(), k, rejected))
		s.want(k, token)
	}
}

func deleteNone(s *subject) {
	s.must("DeleteIf", s.store.DeleteIf(s.Context(), s.key("a"), s.token(40).Value))
	s.must("DeleteIf", s.store.DeleteIf(s.Context(), s.key("a"), ampauth.Secret{}))
}

func deleteBesideSave(s *subject) {
	k := s.key("a")
	for i := range 30 {
		rejected, fresh := s.token(40), s.token(40)
		s.save(k, rejected)
		unlock := s.lockToSave(k)
		var deleteErr, saveErr error
		calls := []func(){
			func() { deleteErr = s.store.DeleteIf(s.Context(), k, rejected.Value) },
			func() { saveErr = s.store.Save(s.Context(), k, fresh) },
		}
		var both sync.WaitGroup
		both.Go(calls[i%2])
		both.Go(calls[1-i%2])
		both.Wait()
		unlock()
		s.must("DeleteIf", deleteErr)
		s.must("Save", saveErr)
		s.want(k, fresh)
	}
}

func loadBesideSaves(s *subject) {
	const enoughLoads, enoughSaves = 200, 60
	k := s.key("a")
	tokens := []ampauth.Token{s.token(40), s.token(4000), s.token(300)}
	s.save(k, tokens[0])
	defer s.lockToSave(k)()
	var saves atomic.Int32
	stop := make(chan struct{})
	errs := make([]error, len(tokens))
	var savers sync.WaitGroup
	for i, token := range tokens {
		savers.Go(func() {
			for errs[i] == nil {
				select {
				case <-stop:
					return
				default:
				}
				errs[i] = s.store.Save(s.Context(), k, token)
				saves.Add(1)
			}
		})
	}
	finish := sync.OnceFunc(func() { close(stop); savers.Wait() })
	defer finish()
	start := time.Now()
	for loads := 0; (loads < enoughLoads || saves.Load() < enoughSaves) && time.Since(start) < patience; loads++ {
		s.want(k, tokens...)
	}
	finish()
	for _, err := range errs {
		s.must("Save", err)
	}
}

func endedContext(s *subject) {
	ended, cancel := context.WithCancel(s.Context())
	cancel()
	k, old, fresh := s.key("a"), s.token(40), s.token(40)
	s.save(k, old)
	var got ampauth.Token
	var err error
	s.promptly("Load with an ended context", func() { got, err = s.store.Load(ended, k) })
	if !s.failed(err) && !got.Value.Equal(old.Value) {
		s.Error("Load returned neither an error nor the token")
	}
	unlock := s.lockToSave(k)
	s.promptly("Save with an ended context", func() { err = s.store.Save(ended, k, fresh) })
	unlock()
	if s.failed(err) {
		s.want(k, old, fresh)
	} else {
		s.want(k, fresh)
	}
	s.save(k, old)
	s.promptly("DeleteIf with an ended context", func() { err = s.store.DeleteIf(ended, k, old.Value) })
	if !s.failed(err) {
		s.wantMiss(k)
	}
}
