package pgstore_test

import (
	"context"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A bouncedStore is a Store whose Watch goes around PgBouncer, since it hears nothing through
// one in transaction mode.
type bouncedStore struct {
	*pgstore.Store
	direct *pgstore.Store // used for Watch only: no connection of its pool is
}

func (s bouncedStore) Watch(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	return s.direct.Watch(ctx, k, changed)
}

func Example_pgBouncer() {
	var cfg ampauth.Config
	var bouncer, direct *pgxpool.Pool
	cfg.Store = bouncedStore{&pgstore.Store{Pool: bouncer}, &pgstore.Store{Pool: direct}}
}
