package pgstore

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// schema is what CreateSchema runs.
//
//go:embed schema.sql
var schema string

// channel is where each Save is told, by the key of its account. It is the same for all
// tables: one table has many spellings, and who hears of another's only looks once more.
const channel = "ampauth_tokens"

// Each statement is a transaction by itself, and may be repeated when its answer was lost:
// it then gives the same. %[1]s is the table. $1 is the account; times are milliseconds, by
// the clock of the server. What decides is asked of the row once it is locked, so that it
// holds at each level of isolation.
const (
	load = `SELECT record FROM %[1]s WHERE key = $1::text AND record IS NOT NULL`

	// $2 record, $3 how long it lives or null, $4 the name under which the lock was taken
	// or ''. No row: not saved. Rows of others that hold nothing any more go.
	save = `WITH saved AS (
	INSERT INTO %[1]s AS t (key, record, expires_at)
	VALUES ($1::text, $2::bytea, clock_timestamp() + $3::bigint * interval '1 millisecond')
	ON CONFLICT (key) DO UPDATE SET record = excluded.record, expires_at = excluded.expires_at
	WHERE t.record = excluded.record
	OR CASE $4::text WHEN '' THEN t.record IS NULL OR t.expires_at <= clock_timestamp()
		ELSE t.holder IS NULL OR t.holder = $4::text END
	RETURNING key
), ended AS (
	SELECT key FROM %[1]s
	WHERE key <> $1::text AND (record IS NULL OR expires_at <= clock_timestamp())
	AND coalesce(greatest(holder_until, paused_until) <= clock_timestamp(), true)
	LIMIT 100 FOR UPDATE SKIP LOCKED
), deleted AS (
	DELETE FROM %[1]s WHERE key IN (SELECT key FROM ended)
)
SELECT pg_notify('` + channel + `', key) FROM saved`

	// $2 what it must hold.
	deleteEqual = `UPDATE %[1]s SET record = NULL, expires_at = NULL
	WHERE key = $1::text AND record = $2::bytea`

	// $2 name, $3 the lease, $4 how long the name is kept. No row: it is somebody else's,
	// which is mostly seen without locking the row that its holder needs.
	take = `INSERT INTO %[1]s AS t (key, holder, lease_until, holder_until)
	SELECT $1::text, $2::text, clock_timestamp() + $3::bigint * interval '1 millisecond',
		clock_timestamp() + $4::bigint * interval '1 millisecond'
	WHERE NOT EXISTS (SELECT FROM %[1]s WHERE key = $1::text AND holder <> $2::text AND lease_until > clock_timestamp())
	ON CONFLICT (key) DO UPDATE SET holder = excluded.holder,
		lease_until = clock_timestamp() + $3::bigint * interval '1 millisecond',
		holder_until = clock_timestamp() + $4::bigint * interval '1 millisecond'
	WHERE t.lease_until IS NULL OR t.lease_until <= clock_timestamp() OR t.holder = excluded.holder`

	// $2 name, $3 the lease. No row: it was lost.
	renew = `UPDATE %[1]s SET lease_until = clock_timestamp() + $3::bigint * interval '1 millisecond'
	WHERE key = $1::text AND holder = $2::text AND lease_until > clock_timestamp()`

	// $2 name. It stays, as the fence.
	release = `UPDATE %[1]s SET lease_until = NULL WHERE key = $1::text AND holder = $2::text`

	// $2 how long.
	pause = `INSERT INTO %[1]s AS t (key, paused_until)
	VALUES ($1::text, clock_timestamp() + $2::bigint * interval '1 millisecond')
	ON CONFLICT (key) DO UPDATE SET paused_until = greatest(t.paused_until, excluded.paused_until)`

	paused = `SELECT (extract(epoch FROM paused_until - clock_timestamp()) * 1000)::bigint
	FROM %[1]s WHERE key = $1::text AND paused_until > clock_timestamp()`
)

func (s *Store) table() string {
	if s.Table == "" {
		return defaultTable
	}
	return s.Table
}

// statement puts the table into a statement.
func (s *Store) statement(text string) string {
	return fmt.Sprintf(text, pgx.Identifier(strings.Split(s.table(), ".")).Sanitize())
}
