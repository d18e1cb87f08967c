package ampauth

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// storeTime bounds each call of a store, also of one that ignores its context.
	storeTime = time.Second
	// leastRest is how long a store is left alone after a fault, so that one which is
	// slow or broken is not paid for at every login. Each fault after that doubles it,
	// up to maxRest, until a call has worked.
	leastRest = time.Second
	maxRest   = 30 * time.Second
	// lockTime bounds the wait for the lock, a quarter of it spread, so that those
	// who wait for a holder that hangs do not log in as a herd. To log in beside it
	// costs a login, and no more.
	lockTime = 10 * time.Second
	// storeTimes is what all calls of a flight can take: three of Load and two of
	// DeleteIf, Save, the lock and its release.
	storeTimes = lockTime + 7*storeTime
)

// A guardedStore is the store of a TokenManager, with what it does wrong kept away: each
// call has its time, a fault is a miss, an event, and a record in the log.
type guardedStore struct {
	store  TokenStore
	logger *slog.Logger
	events listener

	mu       sync.Mutex                // guards all below; never held while calling the store
	reported [numStoreCalls]string     // the last fault of each sort of call that has not worked since
	rests    [numStoreCalls]storedRest // of each sort of call
}

// A storeCall is a sort of call of a store.
type storeCall int

const (
	callLoad storeCall = iota
	callSave
	callDelete
	callLock
	callPause
	callWatch
	numStoreCalls
)

// String is the word for it in an event.
func (c storeCall) String() string {
	return [...]string{"load", "save", "delete", "lock", "pause", "watch"}[c]
}

// A storedRest is for how long a sort of call is not made, after one that failed. A store
// whose Load fails is left alone altogether. Of one that fails otherwise, what works goes
// on: a lock that is broken costs no token.
type storedRest struct {
	number int           // how many there were
	length time.Duration // of the last; 0 once a call has worked
	until  time.Time
}

// A storeTry is a call of a store that has begun.
type storeTry struct {
	call   storeCall
	number int // of the rests that there had been by then
}

// begin begins a call of the store, unless that rests.
func (s *guardedStore) begin(call storeCall) (t storeTry, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return storeTry{call, s.rests[call].number}, !now.Before(s.rests[callLoad].until) && !now.Before(s.rests[call].until)
}

var (
	errResting   = errors.New("the token store is left alone after a fault")
	errStoreDied = errors.New("the TokenStore ended its goroutine")
	errNoUnlock  = errors.New("the TokenStore gave a lock that cannot be unlocked")
	errLockHeld  = errors.New("another process holds the lock for too long")
)

func (s *guardedStore) load(ctx context.Context, k StoreKey) (Token, error) {
	try, ok := s.begin(callLoad)
	if !ok {
		return Token{}, errResting
	}
	token, err := bounded(ctx, storeTime, func(ctx context.Context) (Token, error) { return s.store.Load(ctx, k) }, nil)
	if err == nil {
		token.Value, err = copyOf(token.Value)
	}
	_ = token.Value.Expose(func(b []byte) error {
		if bytes.HasPrefix(b, []byte(clearedMark)) {
			token, err = Token{}, ErrNoToken
		}
		return nil
	})
	s.report(ctx, try, err)
	return token, err
}

// clearedMark begins what a Clear puts in place of what it cannot delete otherwise,
// for the moment until it is deleted. It is nobody's token.
const clearedMark = "ampauth-cleared-"

// copyOf returns a token of the same content, so that a store and a manager can
// each destroy theirs.
func copyOf(value Secret) (copied Secret, err error) {
	unusable := miss("the token is empty or destroyed, or no header can carry it")
	if value.Expose(func(b []byte) error {
		if headerSafe(b) {
			copied = NewSecret(bytes.Clone(b))
		}
		return nil
	}) != nil || copied.IsZero() {
		return Secret{}, unusable
	}
	return copied, nil
}

func (s *guardedStore) save(ctx context.Context, k StoreKey, token Token) (err error) {
	if token.Value, err = copyOf(token.Value); err != nil {
		return err // destroyed meanwhile
	}
	try, ok := s.begin(callSave)
	if !ok {
		return errResting
	}
	_, err = bounded(ctx, storeTime, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.store.Save(ctx, k, token) }, nil)
	s.report(ctx, try, err)
	return err
}

func (s *guardedStore) deleteIf(ctx context.Context, k StoreKey, rejected Secret) error {
	try, ok := s.begin(callDelete)
	if !ok {
		return errResting
	}
	_, err := bounded(ctx, storeTime, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.store.DeleteIf(ctx, k, rejected)
	}, nil)
	s.report(ctx, try, err)
	return err
}

// A lockState is what became of an attempt to get the lock.
type lockState int

const (
	noLock   lockState = iota // there is none
	locked                    // it is ours
	lockBusy                  // somebody else has it, and we did not wait
	lockKept                  // somebody else kept it
	lockDown                  // the store does not work
)

// lock gets the lock of a key, and waits for it if there is nothing better to do.
// unlock is never nil.
func (s *guardedStore) lock(ctx context.Context, k StoreKey, wait bool) (unlock func(), state lockState) {
	nothing := func() {}
	locker, ok := s.store.(Locker)
	if !ok {
		return nothing, noLock
	}
	try, ok := s.begin(callLock)
	if !ok {
		return nothing, lockDown
	}
	type lock struct {
		unlock func()
		ok     bool
	}
	// An unlock that does not come back must hold up nobody either.
	release := func(l lock) {
		if l.unlock == nil {
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = recover() }()
			l.unlock()
		}()
		timer := time.NewTimer(storeTime)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		}
	}
	limit, get := storeTime, locker.TryLock
	if wait {
		limit = lockTime - rand.N(lockTime/4)
		get = func(ctx context.Context, k StoreKey) (func(), bool, error) {
			unlock, err := locker.Lock(ctx, k)
			return unlock, true, err
		}
	}
	got, err := bounded(ctx, limit, func(ctx context.Context) (l lock, err error) {
		l.unlock, l.ok, err = get(ctx, k)
		return l, err
	}, release)
	_, waited := errors.AsType[storeTimeout](err) // not by a clock of the store's own, as of a dial
	switch {
	case wait && waited:
		err = errLockHeld
	case err == nil && !got.ok:
		s.report(ctx, try, nil)
		return nothing, lockBusy
	case err == nil && got.unlock == nil:
		err = errNoUnlock
	}
	s.report(ctx, try, err)
	switch err {
	case nil:
		return func() { release(got) }, locked
	case errLockHeld:
		return nothing, lockKept
	}
	return nothing, lockDown
}

// bounded makes a call of the store within a time. What arrives too late is given
// to drop.
func bounded[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error), drop func(T)) (T, error) {
	var none T
	type end struct {
		value T
		err   error
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ended := make(chan end) // not buffered: what is sent is also received
	go func() {
		e := end{err: errStoreDied}
		defer func() {
			select {
			case ended <- e:
			case <-ctx.Done():
				if e.err == nil && drop != nil {
					drop(e.value)
				}
			}
		}()
		defer recovered("TokenStore", &e.err)
		e.value, e.err = call(ctx)
	}()
	select {
	case e := <-ended:
		if ctx.Err() != nil && caller.Err() == nil && errors.Is(e.err, context.DeadlineExceeded) {
			e.err = storeTimeout{limit: limit}
		}
		return e.value, e.err
	case <-ctx.Done():
		if caller.Err() != nil {
			return none, &leftStore{caller.Err()}
		}
		return none, storeTimeout{limit: limit}
	}
}

// A storeTimeout says that a store took more than its time, which is not its caller's.
type storeTimeout struct {
	deadlineError
	limit time.Duration
}

func (e storeTimeout) Error() string { return fmt.Sprintf("it did not answer within %v", e.limit) }
func (storeTimeout) ownClock()       {}

// A leftStore is no fault of the store: who called it has left.
type leftStore struct{ error }

func (e *leftStore) Unwrap() error { return e.error }

// report takes note of how a call of the store ended. A fault is told each time, and
// written to the log once until that sort of call works again.
func (s *guardedStore) report(ctx context.Context, try storeTry, err error) {
	_, left := errors.AsType[*leftStore](err)
	if left || errors.Is(err, context.Canceled) {
		return // says nothing of the store
	}
	fault := ""
	if isFault(err) {
		fault = cmp.Or(reasonOf(err), "it does not say why")
	}
	news := s.note(try, err, fault)
	if fault == "" {
		return
	}
	if news {
		s.logger.WarnContext(ctx, "ampauth: the token store does not work", "reason", fault)
	}
	s.events.raise(ctx, Event{Name: EventStore, Reason: try.call.String()}, func() error { return faultOf(err) })
}

// note reports whether a fault is one that is not known yet.
func (s *guardedStore) note(try storeTry, err error, fault string) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := &s.rests[try.call]
	switch {
	case err == errLockHeld: // by somebody who may let go of it
	case err == nil, errors.Is(err, ErrNoToken), errors.Is(err, ErrSuperseded):
		rest.length = 0
	case rest.number == try.number: // another one at the same time is the same fault
		rest.number++
		rest.length = min(max(2*rest.length, leastRest), maxRest)
		rest.until = time.Now().Add(rest.length)
	}
	news = !slices.Contains(s.reported[:], fault)
	if news || fault == "" {
		s.reported[try.call] = fault
	}
	return news
}

// endRest has the store asked again.
func (s *guardedStore) endRest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.rests {
		s.rests[i].until = time.Time{}
	}
}

// faultOf is a fault of the store as an error of ours.
func faultOf(err error) error {
	if ours, ok := err.(*Error); ok {
		return ours
	}
	if reason, ok := errors.AsType[miss](err); ok {
		return storeFault(hidden(string(reason), err))
	}
	return storeFault(clean(err))
}

// reasonOf is what is wrong, in the same words whether reading or writing met it.
func reasonOf(err error) string {
	if reason, ok := errors.AsType[miss](err); ok {
		return string(reason)
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Err != nil {
		return causeText(e.Err)
	}
	return causeText(err)
}
