//go:build unix

package pgstore_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// forms is how a text can show a secret.
func forms(secret string) []string {
	list := strings.Trim(fmt.Sprintf("%#v", []byte(secret)), "[]byte{}")
	return []string{secret, fmt.Sprintf("%x", secret), strings.Trim(fmt.Sprint([]byte(secret)), "[]"), list, base64.StdEncoding.EncodeToString([]byte(secret))[:40]}
}

// printed is all that somebody can print of an error, link by link.
func printed(err error) string {
	if err == nil {
		return ""
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%v %+v %#v %q\n", err, err, err, err)
	if e, ok := err.(*pgconn.PgError); ok {
		fmt.Fprintf(&text, "%+v\n", *e)
	}
	if e, ok := err.(*pgconn.ConnectError); ok {
		fmt.Fprintf(&text, "%+v\n", *e.Config)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		text.WriteString(printed(e.Unwrap()))
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			text.WriteString(printed(err))
		}
	}
	return text.String()
}

// What the server, pgx and the user's own triggers say of a row may be all of it.
func TestErrorsShowNoToken(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	for i, change := range []string{
		"ALTER TABLE %s ADD CHECK (record IS NULL)",                                                          // DETAIL: Failing row contains ...
		"ALTER TABLE %[1]s ADD needed text NOT NULL DEFAULT ''; ALTER TABLE %[1]s ALTER needed DROP DEFAULT", // the same
		"CREATE UNIQUE INDEX ON %s ((length(key)))",                                                          // DETAIL: Key ... already exists
		"ALTER TABLE %s ALTER record TYPE bigint USING NULL",
		"ALTER TABLE %s ALTER record TYPE jsonb USING NULL",
		"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION tells()",
		"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION reads()",
		"DROP TABLE %s",
	} {
		table := fmt.Sprint("odd", i)
		if i == 0 {
			s.sql(`CREATE FUNCTION tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				RAISE EXCEPTION 'it is %, or %', NEW.record, convert_from(NEW.record, 'UTF8') USING HINT = convert_from(NEW.record, 'UTF8'); END $$;
				CREATE FUNCTION reads() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				NEW.key = convert_from(NEW.record, 'UTF8')::int; RETURN NEW; END $$`)
		}
		s.sql("CREATE TABLE " + table + " (LIKE ampauth_tokens INCLUDING ALL)")
		s.sql("INSERT INTO " + table + " (key) VALUES ('" + strings.Repeat("x", 32) + "')")
		s.sql(fmt.Sprintf(change, table))
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			pool := s.pool("postgres", func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
			err := (&pgstore.Store{Pool: pool, Table: table}).Save(ctx, newKey(t, "issuer"), newToken(time.Hour))
			if err == nil || errors.Is(err, ampauth.ErrSuperseded) {
				t.Errorf("after %q: got %v", change, err)
			}
			shown := printed(err)
			for _, form := range append(forms(canary), "Failing row", "Key (") {
				if strings.Contains(shown, form) {
					t.Errorf("after %q the error shows the token or its row", change)
				}
			}
			if !strings.Contains(shown, "SQLSTATE") {
				t.Errorf("after %q the error does not say what it is", change)
			}
		}
	}
}

func TestErrorsShowNoPassword(t *testing.T) {
	s, ctx, k := newServer(t), t.Context(), newKey(t, "issuer")
	for name, change := range map[string]func(*pgconn.Config){
		"no server":   func(c *pgconn.Config) { c.Host = "/nowhere" },
		"no user":     func(c *pgconn.Config) { c.User = "missing" },
		"no database": func(c *pgconn.Config) { c.Database = "missing" },
	} {
		pool := s.pool("postgres", func(c *pgxpool.Config) {
			c.ConnConfig.Password = canary
			change(&c.ConnConfig.Config)
		})
		store := &pgstore.Store{Pool: pool}
		errs := everyCall(ctx, store, k)
		errs["Watch"] = store.Watch(ctx, k, func() {})
		errs["CreateSchema"] = pgstore.CreateSchema(ctx, pool)
		for call, err := range errs {
			if err == nil || strings.Contains(printed(err), canary) {
				t.Errorf("%s: %s shows no error, or the password", name, call)
			}
		}
	}
}
