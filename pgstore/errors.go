package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var errNoPool = errors.New("pgstore: Store.Pool is required")

const (
	// mostTries is for statements that met another transaction, or a connection that was dead:
	// more than are ever needed, since the context ends them as well.
	mostTries = 50
	// tryRest is the wait between two of them, on average.
	tryRest = 5 * time.Millisecond
)

// exec runs a statement and returns the number of its rows.
func (s *Store) exec(ctx context.Context, text string, args ...any) (rows int64, err error) {
	err = s.do(ctx, func(mode pgx.QueryExecMode) error {
		tag, err := s.Pool.Exec(ctx, s.statement(text), append([]any{mode}, args...)...)
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}

// do runs a statement, again where that helps. The mode is one that leaves nothing behind on
// a connection, which may be another client's next.
func (s *Store) do(ctx context.Context, run func(pgx.QueryExecMode) error) error {
	if s.Pool == nil {
		return errNoPool
	}
	mode := pgx.QueryExecModeExec
	if s.Pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		mode = pgx.QueryExecModeSimpleProtocol
	}
	for try := 1; ; try++ {
		err := run(mode)
		if err == nil || try == mostTries || !helpsAgain(err) || ctx.Err() != nil {
			return s.fault(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(2 * tryRest)):
		}
	}
}

// helpsAgain reports whether the same statement may do better: after one that ran beside it,
// or over another connection than one that a restart has left behind.
func helpsAgain(err error) bool {
	if _, refused := errors.AsType[*pgconn.ConnectError](err); refused {
		return false
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.Contains([]string{
			"40001", "40P01", // serialization_failure, deadlock_detected
			"57P01", "57P02", "57P05", // the server has ended the connection
		}, e.Code)
	}
	failed, ok := errors.AsType[net.Error](err)
	return ok && !failed.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}

// Classes of errors whose messages are the server's own, and show no value of a row.
var plainClasses = []string{"08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"}

// fault is an error of pgx without what may show a token or a password: the details of the
// server's errors have whole rows in them, and that of a connection has its configuration.
func (s *Store) fault(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		bare := &pgconn.PgError{Severity: e.Severity, SeverityUnlocalized: e.SeverityUnlocalized, Code: e.Code, Message: e.Message}
		if len(e.Code) < 2 || !slices.Contains(plainClasses, e.Code[:2]) {
			bare.Message = "not shown, since it may hold values"
		}
		switch e.Code {
		case "42P01", "42703", "3F000": // no such table, column, schema
			return fmt.Errorf("pgstore: there is no table %s as in schema.sql, which CreateSchema runs: %w", s.table(), bare)
		}
		return fmt.Errorf("pgstore: %w", bare)
	}
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return fmt.Errorf("pgstore: no connection: %w", e.Unwrap())
	}
	return err
}
