package redisstore

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/redis/go-redis/v9"
)

// pingTime is after how long a silence the connection is asked for a sign of life.
const pingTime = 10 * time.Second

// Watch implements [ampauth.Watcher] by a subscription, which has a connection of its
// own. It returns when that breaks, or has gone silent; who calls it again misses nothing,
// since it calls changed once it listens.
func (s *Store) Watch(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	if s.Client == nil {
		return errNoClient
	}
	err := s.listen(ctx, k, changed)
	if cluster, ok := s.Client.(*redis.ClusterClient); ok && ctx.Err() == nil {
		cluster.ReloadState(ctx) // another node may have the slot by now, and a failed dial does not ask
	}
	return err
}

// listen is Watch.
func (s *Store) listen(ctx context.Context, k ampauth.StoreKey, changed func()) error {
	messages := s.Client.Subscribe(ctx, s.name(k.String(), tokenKey))
	defer messages.Close()
	stop := context.AfterFunc(ctx, func() { _ = messages.Close() })
	defer stop()
	for pinged := false; ; {
		message, err := messages.ReceiveTimeout(ctx, pingTime)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		late, _ := errors.AsType[net.Error](err)
		switch {
		case err == nil:
		case late != nil && late.Timeout() && !pinged:
			if err := messages.Ping(ctx); err != nil {
				return err
			}
			pinged = true
			continue
		default:
			return err
		}
		pinged = false
		switch m := message.(type) {
		case *redis.Message:
			changed()
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				changed()
			}
		}
	}
}
