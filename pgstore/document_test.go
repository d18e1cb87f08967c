//go:build unix

package pgstore_test

import (
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/ampauth/ampauth/storetest"
	"github.com/jackc/pgx/v5/pgxpool"
)

func TestDocumentedStoreKeepsToTheContract(t *testing.T) {
	t.Parallel()
	address := newServer(t).Address()
	ctx := t.Context()
	storetest.Run(t, func() ampauth.TokenStore {
		var cfg ampauth.Config
		err := func() error {
			// begin docs/fleets.md

			pool, err := pgxpool.New(ctx, address)
			if err != nil {
				return err
			}
			cfg.Store = &pgstore.Store{Pool: pool}

			// end docs/fleets.md
			t.Cleanup(pool.Close)
			return nil
		}()
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Store
	})
}
