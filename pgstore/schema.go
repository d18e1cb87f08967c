package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// schemaLock is the advisory lock of those who create the table at once: "ampauth" as bytes.
const schemaLock = 0x616d7061757468

// CreateSchema creates the table ampauth_tokens where search_path says, unless there is one:
// it then needs no right to create any. It runs schema.sql, which is for a migration tool, and
// for those who want another name. Any number of processes may call it at once.
func CreateSchema(ctx context.Context, pool *pgxpool.Pool) error {
	if pool == nil {
		return errNoPool
	}
	s := &Store{Pool: pool}
	return s.do(ctx, func(mode pgx.QueryExecMode) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1::bigint)`, mode, int64(schemaLock)); err != nil {
				return err
			}
			var there bool
			err := tx.QueryRow(ctx, `SELECT to_regclass('`+defaultTable+`') IS NOT NULL`, mode).Scan(&there)
			if err != nil || there {
				return err
			}
			_, err = tx.Exec(ctx, schema, mode)
			return err
		})
	})
}
