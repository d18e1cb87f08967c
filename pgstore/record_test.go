//go:build unix

package pgstore_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/jackc/pgx/v5"
)

// What cannot be trusted is a miss, and is replaced under the lock.
func TestRecordThatCannotBeTrustedIsReplaced(t *testing.T) {
	s, k, ctx := newServer(t), newKey(t, "issuer"), t.Context()
	store := &pgstore.Store{Pool: s.pool("postgres", nil)}
	theirs, err := ampauth.EncodeToken(newKey(t, "another"), newToken(time.Hour))
	s.must(err)
	for name, record := range map[string][]byte{
		"null": nil, "empty": {}, "huge": bytes.Repeat([]byte("x"), 1<<20), "of another account": theirs, "cut": theirs[:40],
	} {
		s.sql("DELETE FROM ampauth_tokens")
		s.sql("INSERT INTO ampauth_tokens (key, record) VALUES ($1, $2)", k.String(), record)
		if _, err := store.Load(ctx, k); !errors.Is(err, ampauth.ErrNoToken) {
			t.Errorf("%s: %v", name, err)
		}
		if err := store.DeleteIf(ctx, k, newToken(0).Value); err != nil {
			t.Errorf("%s: DeleteIf: %v", name, err)
		}
		unlock, err := store.Lock(ctx, k)
		s.must(err)
		if err := store.Save(ctx, k, newToken(time.Hour)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		unlock()
		if token, err := store.Load(ctx, k); err != nil || !token.Value.Equal(newToken(0).Value) {
			t.Errorf("%s: it was not replaced: %v", name, err)
		}
	}
}

// The name of a table is a name, whatever is in it.
func TestNameOfATableIsNoStatement(t *testing.T) {
	s, k, ctx := newServer(t), newKey(t, "issuer"), t.Context()
	for _, table := range []string{"Tokens", `x"; DROP TABLE ampauth_tokens; --`, "100%s", "public.Other Tokens"} {
		store := &pgstore.Store{Pool: s.pool("postgres", nil), Table: table}
		for call, err := range everyCall(ctx, store, k) {
			if err == nil {
				t.Errorf("%s: %s found a table that is not there", table, call)
			}
		}
		name := table
		if table == "public.Other Tokens" {
			name = "Other Tokens"
		}
		s.sql("CREATE TABLE " + pgx.Identifier{name}.Sanitize() + " (LIKE ampauth_tokens INCLUDING ALL)")
		s.must(store.Save(ctx, k, newToken(time.Hour)))
		if token, err := store.Load(ctx, k); err != nil || !token.Value.Equal(newToken(0).Value) {
			t.Errorf("%s: %v, or another token", table, err)
		}
	}
	if n := s.number("SELECT count(*) FROM ampauth_tokens WHERE key = $1", k.String()); n != 0 {
		t.Errorf("%d rows are in the table of another Store", n)
	}
}
