package redisstore_test

import (
	"context"
	"log"
	"math/rand/v2"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

// A SharedLimiter is an ampauth.Limiter for all who have the same key in one Redis.
type SharedLimiter struct {
	Redis *redis_rate.Limiter
	Key   string
	Limit redis_rate.Limit
	Alone *rate.Limiter // while Redis is away: this process's share
}

func (l *SharedLimiter) Wait(ctx context.Context) error {
	for {
		result, err := l.Redis.Allow(ctx, l.Key, l.Limit)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return l.Alone.Wait(ctx)
		case result.Allowed > 0:
			return nil
		}
		wait := result.RetryAfter
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return context.DeadlineExceeded
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait + rand.N(l.Limit.Period/time.Duration(l.Limit.Rate))): // not all at once
		}
	}
}

// Eight machines make ten requests a second, together.
func Example_limiter() {
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	database := redis.NewClient(&redis.Options{Addr: "redis.internal:6379"})
	defer database.Close()
	cfg.Limiter = &SharedLimiter{
		Redis: redis_rate.NewLimiter(database),
		Key:   "amp " + cfg.Credentials.Username,
		Limit: redis_rate.PerSecond(10),
		Alone: rate.NewLimiter(10.0/8, 1),
	}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}
