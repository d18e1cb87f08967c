//go:build unix

package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/redisstore"
	"github.com/redis/go-redis/v9"
)

// A lossyConn loses an answer when it is told to: the command was performed.
type lossyConn struct {
	net.Conn
	lose *atomic.Bool
}

func (c lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.lose.CompareAndSwap(true, false) {
		_ = c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}

// go-redis sends a script again whose answer is lost.
func TestLostAnswerChangesNothing(t *testing.T) {
	t.Parallel()
	s, ctx, k := newServer(t), t.Context(), newKey(t)
	var lose atomic.Bool
	client := redis.NewClient(&redis.Options{Addr: s.Address(), Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return lossyConn{c, &lose}, err
	}})
	defer client.Close()
	store := &redisstore.Store{Client: client}
	if _, err := store.Load(ctx, k); !errors.Is(err, ampauth.ErrNoToken) { // a connection is there
		t.Fatal(err)
	}
	losing := func(what string, call func() error) {
		t.Helper()
		lose.Store(true)
		if err := call(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if lose.Load() {
			t.Errorf("%s: no answer was lost", what)
		}
	}
	token, other := newToken(time.Hour), newToken(2*time.Hour)
	losing("Save without the lock", func() error { return store.Save(ctx, k, token) })
	unlock := func() {}
	losing("TryLock", func() (err error) {
		ok := false
		if unlock, ok, err = store.TryLock(ctx, k); err == nil && !ok {
			err = errors.New("somebody else has the lock")
		}
		return err
	})
	losing("Save", func() error { return store.Save(ctx, k, other) })
	losing("Pause", func() error { return store.Pause(ctx, k, time.Minute) })
	losing("Paused", func() error { _, err := store.Paused(ctx, k); return err })
	losing("unlock", func() error { unlock(); return nil })
	if s.client.Exists(ctx, "ampauth:{"+k.String()+"}:lock").Val() != 0 {
		t.Error("the lock is held on")
	}
	losing("DeleteIf", func() error { return store.DeleteIf(ctx, k, other.Value) })
	if _, err := store.Load(ctx, k); !errors.Is(err, ampauth.ErrNoToken) {
		t.Errorf("the token is there still: %v", err)
	}
}

// calls makes each call of a store once and returns the errors by the names of the calls.
func calls(ctx context.Context, store *redisstore.Store, k ampauth.StoreKey) map[string]error {
	_, load := store.Load(ctx, k)
	_, _, try := store.TryLock(ctx, k)
	_, paused := store.Paused(ctx, k)
	return map[string]error{
		"Load": load, "TryLock": try, "Paused": paused,
		"Save":     store.Save(ctx, k, newToken(time.Hour)),
		"DeleteIf": store.DeleteIf(ctx, k, newToken(time.Hour).Value),
		"Pause":    store.Pause(ctx, k, time.Second),
		"Watch":    store.Watch(ctx, k, func() {}),
	}
}

// A Redis that does not do what it is asked gives errors: no miss, which would hide it from
// those who watch, and no token or password in them.
func TestRedisThatRefusesIsAFaultWithoutASecret(t *testing.T) {
	t.Parallel()
	const secret = "a-password-of-redis"
	k := newKey(t)
	for name, test := range map[string]struct {
		arguments []string
		options   redis.Options
		prepare   func(*server)
		fine      string // calls that work all the same
	}{
		"a key of another type": {
			prepare: func(s *server) {
				for _, kind := range []string{"token", "lock"} {
					s.client.RPush(context.Background(), "ampauth:{"+k.String()+"}:"+kind, "x")
				}
			},
			fine: "Pause Paused Watch",
		},
		"no memory is left": {
			prepare: func(s *server) { s.client.ConfigSet(context.Background(), "maxmemory", "1") },
			fine:    "Load Paused DeleteIf Watch",
		},
		"a replica": {
			prepare: func(s *server) {
				s.client.ConfigSet(context.Background(), "replica-serve-stale-data", "yes")
				s.client.Do(context.Background(), "REPLICAOF", "127.0.0.1", "1")
			},
			fine: "Load Paused DeleteIf Watch",
		},
		"a wrong password": {
			prepare: func(s *server) { s.client.ConfigSet(context.Background(), "requirepass", "another") },
			options: redis.Options{Password: secret},
		},
		"a password that is not given": {
			prepare: func(s *server) { s.client.ConfigSet(context.Background(), "requirepass", "another") },
		},
		"commands that are renamed": {
			arguments: []string{"--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "", "--rename-command", "HELLO", ""},
			prepare:   func(s *server) { s.client.ConfigSet(context.Background(), "requirepass", secret) },
			options:   redis.Options{Password: secret},
			fine:      "Load Paused DeleteIf Watch",
		},
		"no rights": {
			prepare: func(s *server) {
				s.client.Do(context.Background(), "ACL", "SETUSER", "poor", "on", ">"+secret, "-@all")
			},
			options: redis.Options{Username: "poor", Password: secret},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, test.arguments...)
			if test.prepare != nil {
				test.prepare(s)
			}
			test.options.Addr, test.options.MaxRetries = s.Address(), -1
			client := redis.NewClient(&test.options)
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			time.AfterFunc(500*time.Millisecond, cancel) // for a Watch that works
			for call, err := range calls(ctx, &redisstore.Store{Client: client}, k) {
				fine := strings.Contains(test.fine+" ", call+" ")
				if call == "Watch" && fine && errors.Is(err, context.Canceled) {
					err = nil
				}
				if errors.Is(err, ampauth.ErrNoToken) && fine {
					err = nil
				}
				if (err == nil) != fine || errors.Is(err, ampauth.ErrNoToken) || errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", call, err)
				}
				if said := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(said, secret) || strings.Contains(said, canary[:8]) {
					t.Errorf("%s: the error shows a secret", call)
				}
			}
		})
	}
}

// Scripts are gone after a restart, or when an administrator has them flushed.
func TestScriptsThatAreFlushedAreSentAgain(t *testing.T) {
	t.Parallel()
	s, ctx, k := newServer(t), t.Context(), newKey(t)
	store := &redisstore.Store{Client: s.client}
	for range 2 {
		unlock, err := store.Lock(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Save(ctx, k, newToken(time.Hour)); err != nil {
			t.Error(err)
		}
		unlock()
		s.client.ScriptFlush(ctx)
	}
}

// What cannot be trusted is a miss, and is replaced under the lock.
func TestRecordThatCannotBeTrustedIsReplaced(t *testing.T) {
	t.Parallel()
	s, ctx, k := newServer(t), t.Context(), newKey(t)
	store := &redisstore.Store{Client: s.client}
	other, err := ampauth.NewStoreKey("https://amp.test/api", "another")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ampauth.EncodeToken(other, newToken(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, record := range map[string]string{
		"empty": "", "huge": strings.Repeat("x", 8<<20), "of another account": string(theirs), "cut": string(theirs[:40]),
	} {
		if err := s.client.Set(ctx, "ampauth:{"+k.String()+"}:token", record, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Load(ctx, k); !errors.Is(err, ampauth.ErrNoToken) {
			t.Errorf("%s: %v", name, err)
		}
		unlock, err := store.Lock(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Save(ctx, k, newToken(time.Hour)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		unlock()
		if token, err := store.Load(ctx, k); err != nil || !token.Value.Equal(newToken(0).Value) {
			t.Errorf("%s: it was not replaced: %v", name, err)
		}
	}
}

// A tool that copies Redis may drop the ends of keys.
func TestKeysThatHaveLostTheirEndHoldNobodyUp(t *testing.T) {
	t.Parallel()
	s, ctx, k := newServer(t), t.Context(), newKey(t)
	store := &redisstore.Store{Client: s.client}
	for _, kind := range []string{"lock", "holder", "pause"} {
		s.client.Set(ctx, "ampauth:{"+k.String()+"}:"+kind, "x", 0)
	}
	if left, err := store.Paused(ctx, k); err != nil || left != 0 {
		t.Errorf("a pause of %v, error %v", left, err)
	}
	unlock, ok, err := store.TryLock(ctx, k)
	if err != nil || !ok {
		t.Fatalf("the lock is not free: %v", err)
	}
	defer unlock()
	if err := store.Save(ctx, k, newToken(time.Hour)); err != nil {
		t.Error(err)
	}
	if err := store.Pause(ctx, k, time.Minute); err != nil {
		t.Error(err)
	}
	for key := range s.everything() {
		if s.client.PTTL(ctx, key).Val() <= 0 {
			t.Errorf("%s has no end", key)
		}
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	s, k := newServer(t), newKey(t)
	client := redis.NewClient(&redis.Options{Addr: s.Address(), ContextTimeoutEnabled: true, ReadTimeout: time.Hour})
	defer client.Close()
	store := &redisstore.Store{Client: client}
	unlock, err := store.Lock(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for call, err := range calls(ended, store, k) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s, of a context that has ended: %v", call, err)
		}
	}
	_ = s.cmd.Process.Signal(syscall.SIGSTOP) // it answers nobody
	for i := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := []func() error{
			func() error { _, err := store.Load(ctx, k); return err },
			func() error { return store.Save(ctx, k, newToken(time.Hour)) },
			func() error { return store.DeleteIf(ctx, k, newToken(0).Value) },
			func() error { _, err := store.Lock(ctx, k); return err },
			func() error { return store.Pause(ctx, k, time.Second) },
			func() error { return store.Watch(ctx, k, func() {}) },
		}[i]()
		cancel()
		if err == nil {
			t.Errorf("call %d of a Redis that is stopped gave no error", i)
		}
	}
	unlock() // takes a second at most
	s.Continue()
}

// One Store serves any number of managers, each with an account of its own.
func TestThousandCallersOfOneStoreKeepTheirAccountsApart(t *testing.T) {
	t.Parallel()
	s, ctx := newServer(t), t.Context()
	store := &redisstore.Store{Client: s.client}
	const accounts, each = 100, 10
	var all sync.WaitGroup
	var inside [accounts]atomic.Int32
	for i := range accounts {
		k, err := ampauth.NewStoreKey("https://amp.test/api", fmt.Sprint("user", i))
		if err != nil {
			t.Fatal(err)
		}
		value := fmt.Sprintf("%040d", i)
		for range each {
			all.Go(func() {
				unlock, err := store.Lock(ctx, k)
				if err != nil {
					t.Error(err)
					return
				}
				if inside[i].Add(1) != 1 {
					t.Error("two have the lock")
				}
				token := newToken(time.Hour)
				token.Value = ampauth.SecretFromString(value)
				if err := store.Save(ctx, k, token); err != nil {
					t.Error(err)
				}
				if got, err := store.Load(ctx, k); err != nil || !got.Value.Equal(token.Value) {
					t.Errorf("another's token, or error %v", err)
				}
				inside[i].Add(-1)
				unlock()
			})
		}
	}
	all.Wait()
}

// A failed dial does not have go-redis ask who has the slot now; the idle would find out
// when they need a token.
func TestWatchOfAClusterFollowsAFailover(t *testing.T) {
	t.Parallel()
	first, second, k := newServer(t), newServer(t), newKey(t)
	var after atomic.Bool
	asked := make(chan struct{}, 100)
	client := redis.NewClusterClient(&redis.ClusterOptions{ClusterSlots: func(context.Context) ([]redis.ClusterSlot, error) {
		address := first.Address()
		if after.Load() {
			address = second.Address()
			asked <- struct{}{}
		}
		return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: address}}}}, nil
	}})
	defer client.Close()
	store := &redisstore.Store{Client: client}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := store.Watch(ctx, k, func() {
		after.Store(true)
		first.Kill()
	})
	if err == nil {
		t.Fatal("Watch ended without an error")
	}
	select {
	case <-asked:
	case <-time.After(5 * time.Second): // after 10 s it asks anyhow
		t.Fatal("nobody asked where the slot is")
	}
	for ctx.Err() == nil {
		_ = store.Watch(ctx, k, cancel)
	}
}
