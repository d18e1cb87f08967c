// Package redisstore keeps the tokens of package ampauth in Redis or Valkey, for a fleet:
// many machines that share an account.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379"})
//	cfg.Store = &redisstore.Store{Client: client}
//
// TLS, user, password and timeouts are the client's; docs/fleets.md has what the user
// must be allowed, what it costs, and what happens when Redis is down.
package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/lease"
	"github.com/redis/go-redis/v9"
)

// A Store is an [ampauth.TokenStore], Locker, Pauser and Watcher, used as a literal. The
// token of an account is in one key, which ends with the token, and the keys of an account
// are in one slot of a cluster.
//
// Its lock is a lease that is renewed until it is unlocked, for ten minutes at most, with a
// fence: a Save is refused once somebody else has had the lock since. The fence is the random
// name of the last holder, so that it still holds when Redis comes back empty.
//
// A token that a failover has lost costs at most a login. Reads must not go to replicas,
// which may be behind: leave ReadOnly, RouteByLatency and RouteRandomly of a cluster's
// client off.
//
// It is safe for concurrent use. Give each process one: the lock belongs to the Store that
// took it.
type Store struct {
	// Client is the connection to Redis. Required. The Store does not close it. With
	// ContextTimeoutEnabled its calls end when their contexts do, not after ReadTimeout.
	Client redis.UniversalClient

	// Prefix is in front of every key, and of the channels for Watch. If empty, "ampauth:".
	Prefix string

	// Lease is how long the lock outlives a holder that died, and how long one may sleep
	// without losing it. If zero, 3 s.
	Lease time.Duration

	// Sealer encrypts the tokens. If nil, whoever reads this Redis, its replicas or its
	// backups reads them.
	Sealer ampauth.Sealer

	locks lease.Locks // that this Store has taken
}

var (
	_ ampauth.Locker  = (*Store)(nil)
	_ ampauth.Pauser  = (*Store)(nil)
	_ ampauth.Watcher = (*Store)(nil)
)

var errNoClient = errors.New("redisstore: Store.Client is required")

// maxLife bounds how long a key is kept: Redis refuses an end that is too far away.
const maxLife = 10 * 365 * 24 * time.Hour

// A kind of key, each with its own end of the name.
const (
	tokenKey  = "token"
	lockKey   = "lock"
	holderKey = "holder" // the last one
	pauseKey  = "pause"
)

// name returns the name of a key. What is in braces says which slot of a cluster has it.
func (s *Store) name(key, kind string) string {
	prefix := s.Prefix
	if prefix == "" {
		prefix = "ampauth:"
	}
	return prefix + "{" + key + "}:" + kind
}

// run runs a script over keys of an account and returns the number that it gives.
func (s *Store) run(ctx context.Context, script *redis.Script, key string, kinds []string, args ...any) (int64, error) {
	if s.Client == nil {
		return 0, errNoClient
	}
	names := make([]string, len(kinds))
	for i, kind := range kinds {
		names[i] = s.name(key, kind)
	}
	return script.Run(ctx, s.Client, names, args...).Int64()
}

// record reads the record of a token; nil if there is none. Wipe it.
func (s *Store) record(ctx context.Context, k ampauth.StoreKey) ([]byte, error) {
	if s.Client == nil {
		return nil, errNoClient
	}
	record, err := s.Client.Get(ctx, s.name(k.String(), tokenKey)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return record, err
}

// Load implements [ampauth.TokenStore]: one GET.
func (s *Store) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	record, err := s.record(ctx, k)
	if err != nil {
		return ampauth.Token{}, err
	}
	if record == nil {
		return ampauth.Token{}, ampauth.ErrNoToken
	}
	defer clear(record)
	return ampauth.OpenToken(k, record, s.Sealer)
}

// Save implements [ampauth.TokenStore] with one script, which also tells those who Watch.
func (s *Store) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	record, err := ampauth.SealToken(k, t, s.Sealer)
	if err != nil {
		return err
	}
	defer clear(record)
	life := maxLife
	if !t.ExpiresAt.IsZero() {
		life = min(max(time.Until(t.ExpiresAt), time.Millisecond), maxLife)
	}
	saved, err := s.run(ctx, save, k.String(), []string{tokenKey, holderKey}, record, life.Milliseconds(), s.locks.Name(k.String()), s.name(k.String(), tokenKey))
	if err == nil && saved == 0 {
		return ampauth.ErrSuperseded
	}
	return err
}

// DeleteIf implements [ampauth.TokenStore]: a GET, and a script if that is the rejected
// token, which deletes nothing else.
func (s *Store) DeleteIf(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	record, err := s.record(ctx, k)
	if err != nil || record == nil {
		return err
	}
	defer clear(record)
	t, err := ampauth.OpenToken(k, record, s.Sealer)
	if err != nil {
		return nil // nobody takes it
	}
	defer t.Value.Destroy()
	if !t.Value.Equal(rejected) {
		return nil
	}
	_, err = s.run(ctx, deleteEqual, k.String(), []string{tokenKey}, record)
	return err
}

// Pause implements [ampauth.Pauser].
func (s *Store) Pause(ctx context.Context, k ampauth.StoreKey, d time.Duration) error {
	if d < time.Millisecond {
		return nil
	}
	_, err := s.run(ctx, pause, k.String(), []string{pauseKey}, d.Milliseconds())
	return err
}

// Paused implements [ampauth.Pauser].
func (s *Store) Paused(ctx context.Context, k ampauth.StoreKey) (left time.Duration, err error) {
	if s.Client == nil {
		return 0, errNoClient
	}
	left, err = s.Client.PTTL(ctx, s.name(k.String(), pauseKey)).Result()
	return max(left, 0), err // it is negative if there is no such key
}
