package pgstore

import (
	"context"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/jackc/pgx/v5"
)

const (
	// pingTime is after how long a silence the connection is asked for a sign of life, and
	// how long that, or a new connection, may take.
	pingTime = 10 * time.Second
	// closeTime bounds the goodbye.
	closeTime = time.Second
)

// Watch implements [ampauth.Watcher] by LISTEN, over a connection of its own, which is none of
// the pool's. It returns when that breaks, or has gone silent; who calls it again misses
// nothing, since it calls changed once it listens.
func (s *Store) Watch(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	if s.Pool == nil {
		return errNoPool
	}
	conn, err := s.listen(ctx)
	if err != nil {
		return s.fault(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	changed()
	for {
		within, cancel := context.WithTimeout(ctx, pingTime)
		notification, err := conn.WaitForNotification(within)
		silent := within.Err() != nil
		if err != nil && silent && ctx.Err() == nil {
			err = ping(ctx, conn)
		}
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return s.fault(err)
		case notification != nil && notification.Payload == k.String():
			changed()
		}
	}
}

// listen makes the connection as the pool would.
func (s *Store) listen(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	pool := s.Pool.Config()
	config := pool.ConnConfig
	config.OnNotification = nil // or they go there
	if pool.BeforeConnect != nil {
		if err := pool.BeforeConnect(ctx, config); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+channel, pgx.QueryExecModeSimpleProtocol); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

func ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	return conn.Ping(ctx)
}
