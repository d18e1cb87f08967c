package ampauth_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// A skewedStore is that of a machine whose clock is ahead.
type skewedStore struct {
	*fleetStore
	ahead time.Duration
}

func shifted(t ampauth.Token, by time.Duration) ampauth.Token {
	t.ObtainedAt = t.ObtainedAt.Add(by)
	if !t.ExpiresAt.IsZero() {
		t.ExpiresAt = t.ExpiresAt.Add(by)
	}
	return t
}

func (s skewedStore) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	t, err := s.fleetStore.Load(ctx, k)
	return shifted(t, -s.ahead), err
}

func (s skewedStore) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	return s.fleetStore.Save(ctx, k, shifted(t, s.ahead))
}

// Which of two tokens is newer is told by the clocks of those who obtained them.
func TestWrongClockOfAMachineCostsAFleetALoginAtMost(t *testing.T) {
	for _, ahead := range []time.Duration{-4 * time.Minute, -time.Second, time.Second, 4 * time.Minute} {
		for _, pause := range []time.Duration{10 * time.Second, time.Hour} {
			t.Run(fmt.Sprintf("%v ahead, a refresh after %v", ahead, pause), func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					e := newMemoryEngine()
					fleet := []*ampauth.Client{w.client(storedIn(skewedStore{e.handle(), ahead})), w.client(storedIn(e.handle())), w.client(storedIn(e.handle()))}
					for _, c := range fleet {
						w.token(c.Tokens)
					}
					const rounds = 6
					for round := range rounds {
						time.Sleep(pause)
						if _, err := fleet[round%2].Tokens.Refresh(t.Context()); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
						for i, c := range fleet {
							if status := w.assets(c); status != 200 {
								t.Errorf("round %d: machine %d got %d", round, i, status)
							}
						}
					}
					most := 1
					if max(ahead, -ahead) > pause { // by the clocks, the new token is older than the one before
						most += rounds
					}
					if n := w.obtains(); n > most {
						t.Errorf("%d logins, want at most %d", n, most)
					}
				})
			})
		}
	}
}
