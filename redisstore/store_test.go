//go:build unix

package redisstore_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/redisstore"
	"github.com/ampauth/ampauth/storetest"
	"github.com/redis/go-redis/v9"
)

// leased adds how to end a lease.
type leased struct {
	*redisstore.Store
	prefix string
}

func (l leased) EndLease(k ampauth.StoreKey) {
	_ = l.Client.Del(context.Background(), l.prefix+"{"+k.String()+"}:lock").Err()
}

func TestStoreKeepsToTheContract(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sealer, err := ampauth.NewAESGCMSealer(ampauth.SecretFromString("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		prefix string
		sealer ampauth.Sealer
	}{
		"in clear":       {"", nil},
		"sealed":         {"sealed:", sealer},
		"another prefix": {"issuer-", nil},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func() ampauth.TokenStore {
				client := redis.NewClient(&redis.Options{Addr: s.Address()})
				t.Cleanup(func() { _ = client.Close() })
				return leased{&redisstore.Store{Client: client, Sealer: test.sealer, Prefix: test.prefix}, cmp.Or(test.prefix, "ampauth:")}
			})
		})
	}
}

// everything is what the server has, keys and values.
func (s *server) everything() map[string]string {
	s.t.Helper()
	ctx := context.Background()
	keys, err := s.client.Keys(ctx, "*").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	all := make(map[string]string)
	for _, key := range keys {
		all[key] = s.client.Get(ctx, key).Val()
	}
	return all
}

const canary = "canarycanarycanarycanarycanarycanary0123"

func newToken(life time.Duration) ampauth.Token {
	now := time.Now()
	return ampauth.Token{Value: ampauth.SecretFromString(canary), ObtainedAt: now, ExpiresAt: now.Add(life)}
}

func newKey(t testing.TB) ampauth.StoreKey {
	t.Helper()
	k, err := ampauth.NewStoreKey("https://amp.test/api", "issuer")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedTokenIsNotInRedis(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{false, true} {
		s := newServer(t)
		store := &redisstore.Store{Client: s.client}
		if sealed {
			sealer, err := ampauth.NewAESGCMSealer(ampauth.SecretFromString("0123456789abcdef0123456789abcdef"))
			if err != nil {
				t.Fatal(err)
			}
			store.Sealer = sealer
		}
		if err := store.Save(t.Context(), newKey(t), newToken(time.Hour)); err != nil {
			t.Fatal(err)
		}
		found := false
		for key, value := range s.everything() {
			found = found || strings.Contains(key+value, canary)
		}
		if found == sealed {
			t.Errorf("sealed: %t, and the token is found: %t", sealed, found)
		}
		if token, err := store.Load(t.Context(), newKey(t)); err != nil || !token.Value.Equal(newToken(0).Value) {
			t.Errorf("sealed: %t: %v, or another token", sealed, err)
		}
	}
}

// Nothing stays for ever: keys end with what they are about, and share a slot.
func TestEveryKeyEndsAndIsInTheSlotOfItsAccount(t *testing.T) {
	t.Parallel()
	s, ctx, k := newServer(t), t.Context(), newKey(t)
	store := &redisstore.Store{Client: s.client}
	unlock, err := store.Lock(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := store.Save(ctx, k, newToken(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := store.Pause(ctx, k, time.Minute); err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{"token": time.Hour, "lock": 3 * time.Second, "holder": time.Hour, "pause": time.Minute}
	keys := s.everything()
	if len(keys) != len(want) {
		t.Errorf("there are the keys %v", slices.Collect(maps.Keys(keys)))
	}
	for kind, most := range want {
		key := "ampauth:{" + k.String() + "}:" + kind
		if left := s.client.PTTL(ctx, key).Val(); left <= 0 || left > most {
			t.Errorf("%s ends in %v, want at most %v", kind, left, most)
		}
	}
}

func TestStoreWithoutAClientSaysSo(t *testing.T) {
	t.Parallel()
	store, k, ctx := new(redisstore.Store), newKey(t), t.Context()
	_, loadErr := store.Load(ctx, k)
	_, lockErr := store.Lock(ctx, k)
	_, _, tryErr := store.TryLock(ctx, k)
	_, pausedErr := store.Paused(ctx, k)
	for call, err := range map[string]error{
		"Load": loadErr, "Lock": lockErr, "TryLock": tryErr, "Paused": pausedErr,
		"Save":     store.Save(ctx, k, newToken(time.Hour)),
		"DeleteIf": store.DeleteIf(ctx, k, newToken(0).Value),
		"Pause":    store.Pause(ctx, k, time.Second),
		"Watch":    store.Watch(ctx, k, func() {}),
	} {
		if err == nil || err.Error() != "redisstore: Store.Client is required" {
			t.Errorf("%s: got %v", call, err)
		}
	}
}

// A fence is no counter, which would begin again with an empty Redis.
func TestFenceHoldsAfterRedisCameBackEmpty(t *testing.T) {
	t.Parallel()
	s, ctx, k := newServer(t), t.Context(), newKey(t)
	a := &redisstore.Store{Client: s.client}
	b := &redisstore.Store{Client: s.client}
	unlock, err := a.Lock(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s.Kill()
	s.Restart()
	unlockB, err := b.Lock(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	defer unlockB()
	if err := a.Save(ctx, k, newToken(time.Hour)); !errors.Is(err, ampauth.ErrSuperseded) {
		t.Errorf("the holder of before saved a token: %v", err)
	}
	if err := b.Save(ctx, k, newToken(time.Hour)); err != nil {
		t.Error(err)
	}
}

// Somebody who waits on a connection that died has to learn of it.
func TestWatchEndsWhenRedisDies(t *testing.T) {
	t.Parallel()
	s, k := newServer(t), newKey(t)
	store := &redisstore.Store{Client: s.client}
	listening, ended := make(chan struct{}, 1), make(chan error)
	go func() { ended <- store.Watch(t.Context(), k, func() { listening <- struct{}{} }) }()
	<-listening
	s.Kill()
	if err := <-ended; err == nil {
		t.Error("Watch ended without an error")
	}
}
