//go:build unix

package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/ampauth/ampauth/storetest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A user with the rights that the documentation names has enough.
func TestRightsOnOneTableAreEnough(t *testing.T) {
	s := newServer(t)
	s.sql(`CREATE SCHEMA tokens; CREATE TABLE tokens.ampauth_tokens (LIKE ampauth_tokens INCLUDING ALL);
		CREATE ROLE service LOGIN; ALTER ROLE service SET search_path = tokens; GRANT USAGE ON SCHEMA tokens TO service;
		REVOKE ALL ON SCHEMA public FROM public;
		GRANT SELECT, INSERT, UPDATE, DELETE ON tokens.ampauth_tokens TO service`)
	pool := s.pool("service", nil)
	s.must(pgstore.CreateSchema(t.Context(), pool)) // since there is one
	storetest.Run(t, func() ampauth.TokenStore { return leased{&pgstore.Store{Pool: pool}} })
	for _, right := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
		s.sql("REVOKE " + right + " ON tokens.ampauth_tokens FROM service")
		store := &pgstore.Store{Pool: pool}
		if err := store.Save(t.Context(), newKey(t, "issuer"), newToken(time.Hour)); err == nil || !strings.Contains(err.Error(), "permission denied for table ampauth_tokens") {
			t.Errorf("without %s: got %v", right, err)
		}
		s.sql("GRANT " + right + " ON tokens.ampauth_tokens TO service")
	}
}

func TestManyCreateTheSchemaAtOnce(t *testing.T) {
	s := newServer(t)
	s.sql("DROP TABLE ampauth_tokens")
	var all sync.WaitGroup
	for range 16 {
		pool := s.pool("postgres", nil)
		all.Go(func() {
			if err := pgstore.CreateSchema(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := (&pgstore.Store{Pool: s.pool("postgres", nil)}).Save(t.Context(), newKey(t, "issuer"), newToken(time.Hour)); err != nil {
		t.Error(err)
	}
}

func TestMissingTableIsSaidWithWhatToDo(t *testing.T) {
	s := newServer(t)
	s.sql("CREATE TABLE another (key text PRIMARY KEY)")
	pool := s.pool("postgres", nil)
	for _, table := range []string{"nowhere", "nowhere.ampauth_tokens", "another"} {
		for call, err := range everyCall(t.Context(), &pgstore.Store{Pool: pool, Table: table}, newKey(t, "issuer")) {
			if err == nil || !strings.HasPrefix(err.Error(), "pgstore: there is no table "+table+" as in schema.sql, which CreateSchema runs") {
				t.Errorf("%s with %s: got %v", call, table, err)
			}
		}
	}
}

func TestTransactionThatTheUserLeftOpenHarmsNothing(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	pool := s.pool("postgres", func(c *pgxpool.Config) { c.MaxConns = 1 })
	for _, statements := range []string{"BEGIN", "BEGIN; SELECT 1/0", "BEGIN; TRUNCATE ampauth_tokens"} {
		conn, err := pool.Acquire(ctx)
		s.must(err)
		_, _ = conn.Exec(ctx, statements)
		conn.Release()
		for call, err := range everyCall(ctx, &pgstore.Store{Pool: pool}, newKey(t, statements)) {
			if err != nil && !(call == "Load" && errors.Is(err, ampauth.ErrNoToken)) {
				t.Errorf("%s after %q: %v", call, statements, err)
			}
		}
	}
}

// What waits for a lock in the database ends, as a fault of the store.
func TestTimeoutsOfTheServerAreFaults(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	s.must((&pgstore.Store{Pool: s.pool("postgres", nil)}).Save(ctx, k, newToken(time.Hour)))
	tx, err := s.admin.Begin(ctx)
	s.must(err)
	_, err = tx.Exec(ctx, "SELECT * FROM ampauth_tokens FOR UPDATE")
	s.must(err)
	for _, timeout := range []string{"statement_timeout", "lock_timeout"} {
		store := &pgstore.Store{Pool: s.pool("postgres", func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[timeout] = "50" })}
		_, _, lockErr := store.TryLock(ctx, k)
		for call, err := range map[string]error{"TryLock": lockErr, "Save": store.Save(ctx, k, newToken(time.Hour)), "Pause": store.Pause(ctx, k, time.Minute), "DeleteIf": store.DeleteIf(ctx, k, newToken(0).Value)} {
			if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, ampauth.ErrNoToken) || errors.Is(err, ampauth.ErrSuperseded) {
				t.Errorf("%s: %s gives %v", timeout, call, err)
			}
		}
		if _, err := store.Load(ctx, k); err != nil {
			t.Errorf("%s: Load, which waits for nobody, gives %v", timeout, err)
		}
	}
	s.must(tx.Rollback(ctx))
}

func TestReadOnlyServerIsAFault(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	s.must((&pgstore.Store{Pool: s.pool("postgres", nil)}).Save(ctx, k, newToken(time.Hour)))
	pool := s.pool("postgres", func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on" })
	for call, err := range everyCall(ctx, &pgstore.Store{Pool: pool}, k) {
		reads := call == "Load" || call == "Paused"
		var refused *pgconn.PgError
		if reads && err != nil || !reads && (!errors.As(err, &refused) || refused.Code != "25006") {
			t.Errorf("%s: got %v", call, err)
		}
	}
}

// One at a time has the lock, and each Save of a holder succeeds, at each level of isolation,
// while other accounts come and go.
func TestNobodyMeetsAnothersTransaction(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	for _, level := range []string{"read committed", "repeatable read", "serializable"} {
		pool := s.pool("postgres", func(c *pgxpool.Config) {
			c.MaxConns = 16
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
		})
		var inside [2]atomic.Int32
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				store, account := &pgstore.Store{Pool: pool}, i%2
				k := newKey(t, fmt.Sprint(level, account))
				for range 3 {
					unlock, err := store.Lock(ctx, k)
					if err != nil {
						t.Errorf("%s: Lock: %v", level, err)
						return
					}
					if inside[account].Add(1) > 1 {
						t.Errorf("%s: two hold the lock", level)
					}
					if err := store.Save(ctx, k, newToken(time.Hour)); err != nil {
						t.Errorf("%s: Save: %v", level, err)
					}
					if err := store.DeleteIf(ctx, k, newToken(0).Value); err != nil {
						t.Errorf("%s: DeleteIf: %v", level, err)
					}
					inside[account].Add(-1)
					unlock()
				}
			})
		}
		all.Wait()
	}
}

func TestThousandAccountsShareAPoolOfFour(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	pool := s.pool("postgres", func(c *pgxpool.Config) { c.MaxConns = 4 })
	store := &pgstore.Store{Pool: pool, Lease: time.Hour}
	var all sync.WaitGroup
	for i := range 1000 {
		all.Go(func() {
			k, token := newKey(t, fmt.Sprint("user", i)), newToken(time.Hour)
			token.Value = ampauth.SecretFromString(fmt.Sprint("token", i))
			unlock, err := store.Lock(ctx, k)
			if err != nil {
				t.Errorf("Lock: %v", err)
				return
			}
			defer unlock()
			if err := store.Save(ctx, k, token); err != nil {
				t.Errorf("Save: %v", err)
			}
			if got, err := store.Load(ctx, k); err != nil || !got.Value.Equal(token.Value) {
				t.Errorf("Load: %v, or another's token", err)
			}
		})
	}
	all.Wait()
	if n := pool.Stat().MaxConns(); n != 4 {
		t.Errorf("%d connections", n)
	}
	if rows := s.number("SELECT count(*) FROM ampauth_tokens WHERE record IS NOT NULL"); rows != 1000 {
		t.Errorf("%d tokens are stored", rows)
	}
}

// Connections that are cut, as by a restart, cost a holder nothing.
func TestHolderOutlivesItsConnections(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	store := &pgstore.Store{Pool: s.pool("postgres", nil), Lease: time.Hour}
	cut := func() {
		s.t.Helper()
		if n := s.number("SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity WHERE application_name = 'test'"); n == 0 {
			t.Error("there was no connection to cut")
		}
	}
	unlock, err := store.Lock(ctx, k)
	s.must(err)
	cut()
	s.must(store.Save(ctx, k, newToken(time.Hour)))
	cut()
	if _, err := store.Load(ctx, k); err != nil {
		t.Error(err)
	}
	cut()
	unlock()
	if _, ok, err := (&pgstore.Store{Pool: store.Pool}).TryLock(ctx, k); !ok || err != nil {
		t.Errorf("after the unlock: %t, %v", ok, err)
	}
}

// A cutConn loses the answer to what was sent, if it is told to.
type cutConn struct {
	net.Conn
	cut *atomic.Bool
}

func (c cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.cut.Swap(false) {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// What was performed although its answer was lost is sent again, and gives the same.
func TestLostAnswerIsNoFault(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	var cut atomic.Bool
	store := &pgstore.Store{Lease: time.Hour, Pool: s.pool("postgres", func(c *pgxpool.Config) {
		c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		c.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return cutConn{conn, &cut}, err
		}
	})}
	_, _ = store.Paused(ctx, k) // so that there is a connection
	var unlock func()
	for _, call := range []struct {
		name string
		make func() error
	}{
		{"Lock", func() (err error) { unlock, err = store.Lock(ctx, k); return err }},
		{"Save", func() error { return store.Save(ctx, k, newToken(time.Hour)) }},
		{"Load", func() error { _, err := store.Load(ctx, k); return err }},
		{"DeleteIf", func() error { return store.DeleteIf(ctx, k, newToken(0).Value) }},
		{"Save", func() error { return store.Save(ctx, k, newToken(time.Hour)) }},
		{"Pause", func() error { return store.Pause(ctx, k, time.Minute) }},
		{"Paused", func() error { _, err := store.Paused(ctx, k); return err }},
		{"unlock", func() error { unlock(); return nil }},
		{"Save without the lock", func() error {
			return store.Save(ctx, newKey(t, "other"), newToken(time.Hour))
		}},
	} {
		cut.Store(true)
		if err := call.make(); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
		if cut.Load() {
			t.Errorf("%s: no answer was lost", call.name)
		}
	}
	cut.Store(false)
	if _, ok, err := (&pgstore.Store{Pool: store.Pool}).TryLock(ctx, k); !ok || err != nil {
		t.Errorf("after the unlock: %t, %v", ok, err)
	}
}

// listen begins a Watch and waits until it listens.
func listen(t testing.TB, store *pgstore.Store, k ampauth.StoreKey) (calls chan struct{}, ended chan error) {
	t.Helper()
	calls, ended = make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- store.Watch(t.Context(), k, func() { calls <- struct{}{} }) }()
	select {
	case <-calls:
	case err := <-ended:
		t.Fatalf("Watch ended: %v", err)
	}
	return calls, ended
}

// Somebody who waits on a connection that died has to learn of it.
func TestWatchEndsWhenItsConnectionDoes(t *testing.T) {
	for name, cut := range map[string]func(*server){
		"the server dies": (*server).Kill,
		"it is cut": func(s *server) {
			s.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			_, ended := listen(t, &pgstore.Store{Pool: s.pool("postgres", nil)}, newKey(t, "issuer"))
			cut(s)
			if err := <-ended; err == nil {
				t.Error("Watch ended without an error")
			}
		})
	}
}

// The user's pool stays the user's: none of its connections is taken, what it does before it
// connects is done, and what it hears goes where it went.
func TestWatchHasAConnectionOfItsOwn(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	var elsewhere, prepared atomic.Int32
	pool := s.pool("postgres", func(c *pgxpool.Config) {
		c.MaxConns = 1
		c.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { elsewhere.Add(1) }
		c.ConnConfig.User = "nobody in particular"
		c.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			prepared.Add(1)
			c.User = "postgres"
			return nil
		}
	})
	store := &pgstore.Store{Pool: pool}
	calls, _ := listen(t, store, k)
	if total := pool.Stat().TotalConns(); total != 0 {
		t.Errorf("the pool has %d connections of Watch", total)
	}
	s.must(store.Save(ctx, k, newToken(time.Hour)))
	<-calls
	if elsewhere.Load() != 0 || prepared.Load() != 2 {
		t.Errorf("the user's OnNotification has heard %d times, BeforeConnect was called %d times", elsewhere.Load(), prepared.Load())
	}
}
