// Package pgstore keeps the tokens of package ampauth in PostgreSQL, for a fleet: many
// machines that share an account.
//
//	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
//	...
//	cfg.Store = &pgstore.Store{Pool: pool}
//
// It needs one table: schema.sql beside this file, for a migration tool, or [CreateSchema].
// TLS, user and password are the pool's. docs/fleets.md has the rights that the user needs,
// what it costs, and what happens when the database is down.
package pgstore

import (
	"context"
	"errors"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/lease"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A Store is an [ampauth.TokenStore], Locker, Pauser and Watcher, used as a literal. The
// token of an account is in one row, with its lock and its pause.
//
// Its lock is a lease by the server's clock that is renewed until it is unlocked, for ten
// minutes at most, with a fence: a Save is refused once somebody else has had the lock since.
// It holds no connection and no transaction. The fence is the random name of the last
// holder, so that it still holds when the table comes back empty.
//
// A token that a failover has lost costs at most a login. The pool must lead to the primary:
// a standby takes no lock. Statements are sent unprepared, each by itself, so that it works
// behind PgBouncer in transaction mode; only Watch is deaf there.
//
// It is safe for concurrent use. Give each process one: the lock belongs to the Store that
// took it.
type Store struct {
	// Pool is the connections to PostgreSQL. Required. The Store does not close it. A call
	// takes one for a statement, and fails if there is none within a second; Watch has one of
	// its own for each account, made as the pool's BeforeConnect says.
	Pool *pgxpool.Pool

	// Table is the name of the table, with or without its schema: as it was created, since it
	// is quoted. If empty, "ampauth_tokens".
	Table string

	// Lease is how long the lock outlives a holder that died, and how long one may sleep
	// without losing it. If zero, 3 s.
	Lease time.Duration

	// Sealer encrypts the tokens. If nil, whoever reads this table, its backups or the log of
	// a server that logs parameters reads them.
	Sealer ampauth.Sealer

	locks lease.Locks // that this Store has taken
}

var (
	_ ampauth.Locker  = (*Store)(nil)
	_ ampauth.Pauser  = (*Store)(nil)
	_ ampauth.Watcher = (*Store)(nil)
)

const (
	defaultTable = "ampauth_tokens"
	// maxLife bounds how far ahead a time may be.
	maxLife = 10 * 365 * 24 * time.Hour
)

// record reads the record of a token; nil if there is none. Wipe it.
func (s *Store) record(ctx context.Context, k ampauth.StoreKey) (record []byte, err error) {
	err = s.do(ctx, func(mode pgx.QueryExecMode) error {
		return s.Pool.QueryRow(ctx, s.statement(load), mode, k.String()).Scan(&record)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return record, err
}

// Load implements [ampauth.TokenStore] with one SELECT.
func (s *Store) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	record, err := s.record(ctx, k)
	if err != nil {
		return ampauth.Token{}, err
	}
	if record == nil {
		return ampauth.Token{}, ampauth.ErrNoToken
	}
	defer clear(record)
	return ampauth.OpenToken(k, record, s.Sealer)
}

// Save implements [ampauth.TokenStore] with one statement, which also tells those who Watch.
func (s *Store) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	record, err := ampauth.SealToken(k, t, s.Sealer)
	if err != nil {
		return err
	}
	defer clear(record)
	var life any // null: no end
	if !t.ExpiresAt.IsZero() {
		life = min(time.Until(t.ExpiresAt), maxLife).Milliseconds()
	}
	saved, err := s.exec(ctx, save, k.String(), record, life, s.locks.Name(k.String()))
	if err == nil && saved == 0 {
		return ampauth.ErrSuperseded
	}
	return err
}

// DeleteIf implements [ampauth.TokenStore]: a SELECT, and an UPDATE if that is the rejected
// token, which removes nothing else.
func (s *Store) DeleteIf(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	record, err := s.record(ctx, k)
	if err != nil || record == nil {
		return err
	}
	defer clear(record)
	t, err := ampauth.OpenToken(k, record, s.Sealer)
	if err != nil {
		return nil // nobody takes it
	}
	defer t.Value.Destroy()
	if !t.Value.Equal(rejected) {
		return nil
	}
	_, err = s.exec(ctx, deleteEqual, k.String(), record)
	return err
}

// Pause implements [ampauth.Pauser].
func (s *Store) Pause(ctx context.Context, k ampauth.StoreKey, d time.Duration) error {
	if d < time.Millisecond {
		return nil
	}
	_, err := s.exec(ctx, pause, k.String(), min(d, maxLife).Milliseconds())
	return err
}

// Paused implements [ampauth.Pauser].
func (s *Store) Paused(ctx context.Context, k ampauth.StoreKey) (left time.Duration, err error) {
	var ms int64
	err = s.do(ctx, func(mode pgx.QueryExecMode) error {
		return s.Pool.QueryRow(ctx, s.statement(paused), mode, k.String()).Scan(&ms)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return time.Duration(ms) * time.Millisecond, err
}
