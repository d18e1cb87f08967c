//go:build unix

package pgstore_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
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
		t.Run(name, func(t *testing.T) {
			pool := s.pool("postgres", test.change)
			storetest.Run(t, func() ampauth.TokenStore {
				return leased{&pgstore.Store{Pool: pool, Table: test.table, Sealer: test.sealer}}
			})
		})
	}
}
