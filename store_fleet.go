package ampauth

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
)

// What only a store for many machines has, guarded as the rest of it.

const (
	// spreadTime is over how long logins are spread while the store is down: for all who
	// share it at once.
	spreadTime = time.Second
	// fleetTimes is what a flight can take besides: two of Load, two of a Pauser.
	fleetTimes = spreadTime + 4*storeTime
)

// forFleet reports whether the store is one for many machines.
func (s *guardedStore) forFleet() bool {
	_, pauses := s.store.(Pauser)
	_, watches := s.store.(Watcher)
	return pauses || watches
}

// pause has all who share the account pause.
func (s *guardedStore) pause(ctx context.Context, k StoreKey, d time.Duration) {
	pauser, ok := s.store.(Pauser)
	if !ok {
		return
	}
	try, ok := s.begin(callPause)
	if !ok {
		return
	}
	_, err := bounded(ctx, storeTime, func(ctx context.Context) (struct{}, error) { return struct{}{}, pauser.Pause(ctx, k, d) }, nil)
	s.report(ctx, try, err)
}

// paused is how long those who share the account pause.
func (s *guardedStore) paused(ctx context.Context, k StoreKey) (left time.Duration) {
	pauser, ok := s.store.(Pauser)
	if !ok {
		return 0
	}
	try, ok := s.begin(callPause)
	if !ok {
		return 0
	}
	left, err := bounded(ctx, storeTime, func(ctx context.Context) (time.Duration, error) { return pauser.Paused(ctx, k) }, nil)
	s.report(ctx, try, err)
	if err != nil {
		return 0
	}
	return left
}

var errWatchEnded = errors.New("its Watch has returned before its time")

// watch has changed called, by one goroutine at a time, when a token may have been saved,
// until ctx ends. A Watch that has returned is called again after a rest.
func (s *guardedStore) watch(ctx context.Context, w Watcher, k StoreKey, changed func()) {
	for rest := leastRest; ; rest = min(2*rest, maxRest) {
		try, _ := s.begin(callWatch)
		began := time.Now()
		var heard atomic.Bool
		ended := make(chan error, 1)
		go func() {
			err := error(errStoreDied)
			defer func() { ended <- err }()
			defer recovered("TokenStore", &err)
			err = w.Watch(ctx, k, func() {
				if !heard.Swap(true) {
					s.report(ctx, try, nil)
				}
				changed()
			})
		}()
		var err error
		select {
		case err = <-ended:
		case <-ctx.Done():
			select { // one that ignores ctx is left alone
			case <-ended:
			case <-time.After(storeTime):
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, context.Canceled) {
			err = errWatchEnded
		}
		s.report(ctx, try, err)
		if heard.Load() && time.Since(began) > maxRest { // not one that returns each time
			rest = leastRest
		}
		if !pace.Sleep(ctx, rest/2+rand.N(rest/2)) { // not all at once
			return
		}
	}
}
