package storetest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// patience is for calls that have nothing to wait for, on a busy machine.
const patience = 20 * time.Second

// A subject is the store that a check is about.
type subject struct {
	testing.TB
	store    ampauth.TokenStore
	newStore func() ampauth.TokenStore
	user     string // no other run has it

	mu     sync.Mutex // guards tokens
	tokens []string   // those that no error may show
}

func newSubject(t testing.TB, newStore func() ampauth.TokenStore) *subject {
	return &subject{TB: t, store: newStore(), newStore: newStore, user: rand.Text()}
}

// key returns a key that no other run has.
func (s *subject) key(name string) ampauth.StoreKey {
	s.Helper()
	k, err := ampauth.NewStoreKey("https://amp.test/api", s.user+name)
	if err != nil {
		s.Fatal(err)
	}
	return k
}

// token returns a new token of about this length, which has an end.
func (s *subject) token(length int) ampauth.Token {
	value := rand.Text()
	value += strings.Repeat(value[:1], max(0, length-len(value)))
	s.mu.Lock()
	s.tokens = append(s.tokens, value[:26])
	s.mu.Unlock()
	now := time.Now()
	return ampauth.Token{Value: ampauth.SecretFromString(value), ObtainedAt: now, ExpiresAt: now.Add(time.Hour)}
}

// shows reports whether an error shows a token.
func (s *subject) shows(err error) bool {
	said := fmt.Sprintf("%v %+v %#v %q", err, err, err, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range s.tokens {
		for _, form := range []string{
			token, fmt.Sprintf("%x", token), strings.Trim(fmt.Sprint([]byte(token)), "[]"),
			base64.StdEncoding.EncodeToString([]byte(token))[:32],
		} {
			if strings.Contains(said, form) {
				return true
			}
		}
	}
	return false
}

// failed reports whether a call failed, which is no fault unless the error shows a
// token.
func (s *subject) failed(err error) bool {
	s.Helper()
	if err != nil && s.shows(err) {
		s.Error("an error shows a token") // so must not be shown here
	}
	return err != nil
}

// must stops the check if a call failed.
func (s *subject) must(call string, err error) {
	s.Helper()
	switch {
	case err == nil:
	case s.shows(err):
		s.Fatalf("%s failed, and its error shows a token", call)
	default:
		s.Fatalf("%s: %v", call, err)
	}
}

func (s *subject) save(k ampauth.StoreKey, t ampauth.Token) {
	s.Helper()
	defer s.lockToSave(k)()
	s.must("Save", s.store.Save(s.Context(), k, t))
}

// lockToSave takes the lock, if the store has one.
func (s *subject) lockToSave(k ampauth.StoreKey) (unlock func()) {
	s.Helper()
	l, ok := s.store.(ampauth.Locker)
	if !ok {
		return func() {}
	}
	return s.lock(l, k)
}

// want stops the check unless Load returns one of these tokens.
func (s *subject) want(k ampauth.StoreKey, tokens ...ampauth.Token) {
	s.Helper()
	got, err := s.store.Load(s.Context(), k)
	s.must("Load", err)
	for _, token := range tokens {
		if got.Value.Equal(token.Value) {
			for what, times := range map[string][2]time.Time{"ObtainedAt": {got.ObtainedAt, token.ObtainedAt}, "ExpiresAt": {got.ExpiresAt, token.ExpiresAt}} {
				if !sameSecond(times[0], times[1]) {
					s.Errorf("%s is %v, want %v", what, times[0], times[1])
				}
			}
			return
		}
	}
	s.Fatal("Load returned another token")
}

func sameSecond(a, b time.Time) bool {
	return a.IsZero() == b.IsZero() && (a.IsZero() || a.Unix() == b.Unix())
}

func (s *subject) wantMiss(k ampauth.StoreKey) {
	s.Helper()
	t, err := s.store.Load(s.Context(), k)
	if !s.failed(err) || !errors.Is(err, ampauth.ErrNoToken) {
		s.Error("Load does not return an error that Is ErrNoToken")
	}
	if !t.Value.IsZero() {
		s.Error("Load returned a token with its miss")
	}
}

// promptly makes a call and stops the check if it does not return.
func (s *subject) promptly(what string, call func()) {
	s.Helper()
	done := make(chan struct{})
	go func() { defer close(done); call() }()
	select {
	case <-done:
	case <-time.After(patience):
		s.Fatalf("%s does not return", what)
	}
}
