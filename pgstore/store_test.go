//go:build unix

package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/ampauth/ampauth/storetest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// leased adds how to end a lease.
type leased struct{ *pgstore.Store }

func (l leased) EndLease(k ampauth.StoreKey) {
	table := l.Table
	if table == "" {
		table = "ampauth_tokens"
	}
	_, _ = l.Pool.Exec(context.Background(), "UPDATE "+pgx.Identifier(strings.Split(table, ".")).Sanitize()+
		" SET lease_until = NULL WHERE key = $1", k.String())
}

func newSealer(t testing.TB) ampauth.Sealer {
	t.Helper()
	sealer, err := ampauth.NewAESGCMSealer(ampauth.SecretFromString("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}

func TestStoreKeepsToTheContract(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.sql(`CREATE SCHEMA "Odd ""place"; CREATE TABLE "Odd ""place"."Token%s;" (LIKE ampauth_tokens INCLUDING ALL)`)
	level := func(isolation string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_isolation"] = isolation }
	}
	mode := func(m pgx.QueryExecMode) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = m }
	}
	for name, test := range map[string]struct {
		table  string
		sealer ampauth.Sealer
		change func(*pgxpool.Config)
	}{
		"in clear":             {},
		"sealed":               {sealer: newSealer(t)},
		"a table with a place": {table: `Odd "place.Token%s;`},
		"repeatable read":      {change: level("repeatable read")},
		"serializable":         {change: level("serializable")},
		"simple protocol":      {change: mode(pgx.QueryExecModeSimpleProtocol)},
		"described statements": {change: mode(pgx.QueryExecModeCacheDescribe)},
		"a pool of one":        {change: func(c *pgxpool.Config) { c.MaxConns = 1 }},
	} {
		pool := s.pool("postgres", test.change)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func() ampauth.TokenStore {
				return leased{&pgstore.Store{Pool: pool, Table: test.table, Sealer: test.sealer}}
			})
		})
	}
}

const canary = "canarycanarycanarycanarycanarycanary0123"

func newToken(life time.Duration) ampauth.Token {
	now := time.Now()
	return ampauth.Token{Value: ampauth.SecretFromString(canary), ObtainedAt: now, ExpiresAt: now.Add(life)}
}

func newKey(t testing.TB, name string) ampauth.StoreKey {
	t.Helper()
	k, err := ampauth.NewStoreKey("https://amp.test/api", name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// number is the number that a query gives.
func (s *server) number(query string, args ...any) (n int) {
	s.t.Helper()
	s.must(s.admin.QueryRow(context.Background(), query, args...).Scan(&n))
	return n
}

func TestSealedTokenIsNotInTheTable(t *testing.T) {
	s := newServer(t)
	for i, sealer := range []ampauth.Sealer{nil, newSealer(t)} {
		store, k := &pgstore.Store{Pool: s.pool("postgres", nil), Sealer: sealer}, newKey(t, fmt.Sprint(i))
		s.must(store.Save(t.Context(), k, newToken(time.Hour)))
		found := s.number("SELECT count(*) FROM ampauth_tokens t WHERE key = $1 AND position($2::bytea IN record) > 0", k.String(), []byte(canary))
		if sealed := sealer != nil; (found > 0) == sealed {
			t.Errorf("sealed: %t, and the token is found %d times", sealed, found)
		}
		if token, err := store.Load(t.Context(), k); err != nil || !token.Value.Equal(newToken(0).Value) {
			t.Errorf("%v, or another token", err)
		}
	}
}

// An account is a row, however often its token changes. A row goes when nothing in it counts.
func TestRowsThatHoldNothingAreDeleted(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	store := &pgstore.Store{Pool: s.pool("postgres", nil)}
	past, future := "clock_timestamp() - interval '1 second'", "clock_timestamp() + interval '1 minute'"
	for _, row := range []struct{ key, columns, values string }{
		{"ended-token", "record, expires_at", "'x', " + past},
		{"ended-all", "record, expires_at, holder, holder_until, lease_until, paused_until", "'x', " + past + ", 'h', " + past + ", " + past + ", " + past},
		{"ended-pause", "paused_until", past},
		{"ended-deleted", "holder, holder_until", "'h', " + past},
		{"kept-token", "record, expires_at, holder_until", "'x', " + future + ", " + past},
		{"kept-endless", "record", "'x'"},
		{"kept-holder", "record, expires_at, holder, holder_until", "'x', " + past + ", 'h', " + future},
		{"kept-pause", "holder_until, paused_until", past + ", " + future},
	} {
		s.sql("INSERT INTO ampauth_tokens (key, " + row.columns + ") VALUES ('" + row.key + "', " + row.values + ")")
	}
	for range 5 {
		unlock, err := store.Lock(ctx, newKey(t, "issuer"))
		s.must(err)
		s.must(store.Save(ctx, newKey(t, "issuer"), newToken(time.Hour)))
		unlock()
	}
	if ended, kept, all := s.number("SELECT count(*) FROM ampauth_tokens WHERE key LIKE 'ended%'"),
		s.number("SELECT count(*) FROM ampauth_tokens WHERE key LIKE 'kept%'"), s.number("SELECT count(*) FROM ampauth_tokens"); ended != 0 || kept != 4 || all != 5 {
		t.Errorf("of 4 rows that have ended there are %d, of 4 others %d; all are %d", ended, kept, all)
	}
}

// everyCall makes each call, and returns their errors.
func everyCall(ctx context.Context, store *pgstore.Store, k ampauth.StoreKey) map[string]error {
	_, loadErr := store.Load(ctx, k)
	unlock, lockErr := store.Lock(ctx, k)
	if unlock != nil {
		unlock()
	}
	unlock, _, tryErr := store.TryLock(ctx, k)
	if unlock != nil {
		unlock()
	}
	_, pausedErr := store.Paused(ctx, k)
	return map[string]error{
		"Load": loadErr, "Lock": lockErr, "TryLock": tryErr, "Paused": pausedErr,
		"Save":     store.Save(ctx, k, newToken(time.Hour)),
		"DeleteIf": store.DeleteIf(ctx, k, newToken(0).Value),
		"Pause":    store.Pause(ctx, k, time.Second),
	}
}

func TestStoreWithoutAPoolSaysSo(t *testing.T) {
	store, k, ctx := new(pgstore.Store), newKey(t, "issuer"), t.Context()
	errs := everyCall(ctx, store, k)
	errs["Watch"] = store.Watch(ctx, k, func() {})
	errs["CreateSchema"] = pgstore.CreateSchema(ctx, nil)
	for call, err := range errs {
		if err == nil || !strings.HasSuffix(err.Error(), "Pool is required") {
			t.Errorf("%s: got %v", call, err)
		}
	}
}

func TestEachCallEndsWithItsContext(t *testing.T) {
	s := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store, k := &pgstore.Store{Pool: s.pool("postgres", nil)}, newKey(t, "issuer")
	errs := everyCall(ctx, store, k)
	errs["Watch"] = store.Watch(ctx, k, func() {})
	errs["CreateSchema"] = pgstore.CreateSchema(ctx, store.Pool)
	for call, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", call, err)
		}
	}
}

// What docs/fleets.md says that it costs.
func TestACallIsOneStatement(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	store := &pgstore.Store{Pool: s.pool("postgres", nil)}
	var unlock func()
	for _, call := range []struct {
		name string
		want int
		make func() error
	}{
		{"Load, nothing stored", 1, func() error { _, _ = store.Load(ctx, k); return nil }},
		{"Lock", 1, func() (err error) { unlock, err = store.Lock(ctx, k); return err }},
		{"Save", 1, func() error { return store.Save(ctx, k, newToken(time.Hour)) }},
		{"Load", 1, func() error { _, err := store.Load(ctx, k); return err }},
		{"unlock", 1, func() error { unlock(); return nil }},
		{"DeleteIf of another", 1, func() error { return store.DeleteIf(ctx, k, ampauth.SecretFromString("another")) }},
		{"DeleteIf", 2, func() error { return store.DeleteIf(ctx, k, newToken(0).Value) }},
		{"Pause", 1, func() error { return store.Pause(ctx, k, time.Second) }},
		{"Paused", 1, func() error { _, err := store.Paused(ctx, k); return err }},
	} {
		before := len(s.statements("test"))
		s.must(call.make())
		if got := len(s.statements("test")) - before; got != call.want {
			t.Errorf("%s: %d statements, want %d", call.name, got, call.want)
		}
	}
}

func TestALoginIsSixStatementsAndARequestIsNone(t *testing.T) {
	s, amp := newServer(t), ampauthtest.NewServer(t, ampauthtest.Options{})
	cfg := amp.Config()
	cfg.Store = &pgstore.Store{Pool: s.pool("postgres", nil)}
	before := len(s.statements("test"))
	client, err := ampauth.NewClient(cfg)
	s.must(err)
	defer client.Close()
	for range 5 {
		_, err := client.Tokens.Token(t.Context())
		s.must(err)
	}
	var verbs []string
	s.await("it listens, and has looked", func(context.Context) error {
		verbs = nil
		for _, text := range s.statements("test")[before:] {
			verb, _, _ := strings.Cut(text, " ")
			verbs = append(verbs, verb)
		}
		slices.Sort(verbs)
		if !slices.Contains(verbs, "LISTEN") || len(verbs) < 8 {
			return fmt.Errorf("%q", verbs)
		}
		return nil
	})
	// Load, Lock, Load, Paused, Save, unlock; LISTEN, and a Load for each time it may have changed.
	if want := 9; len(verbs) > want {
		t.Errorf("%d statements, want at most %d: %q", len(verbs), want, verbs)
	}
	t.Logf("%q", verbs)
}

func TestFenceHoldsAfterTheTableCameBackEmpty(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	a, b := &pgstore.Store{Pool: s.pool("postgres", nil)}, &pgstore.Store{Pool: s.pool("postgres", nil)}
	unlock, err := a.Lock(ctx, k)
	s.must(err)
	defer unlock()
	s.sql("TRUNCATE ampauth_tokens")
	unlockB, err := b.Lock(ctx, k)
	s.must(err)
	defer unlockB()
	if err := a.Save(ctx, k, newToken(time.Hour)); !errors.Is(err, ampauth.ErrSuperseded) {
		t.Errorf("the holder of before saved a token: %v", err)
	}
	s.must(b.Save(ctx, k, newToken(time.Hour)))
}

func TestLeaseIsRenewedWhileTheLockIsHeld(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	store := &pgstore.Store{Pool: s.pool("postgres", nil), Lease: time.Second}
	unlock, err := store.Lock(ctx, k)
	s.must(err)
	defer unlock()
	end := func() (end time.Time) {
		s.must(s.admin.QueryRow(ctx, "SELECT lease_until FROM ampauth_tokens WHERE key = $1", k.String()).Scan(&end))
		return end
	}
	first := end()
	s.await("it is renewed", func(context.Context) error {
		if !end().After(first) {
			return errors.New("it ends when it did")
		}
		return nil
	})
}
