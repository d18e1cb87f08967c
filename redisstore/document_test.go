//go:build unix

package redisstore_test

import (
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/redisstore"
	"github.com/ampauth/ampauth/storetest"
	"github.com/redis/go-redis/v9"
)

func TestDocumentedStoreKeepsToTheContract(t *testing.T) {
	t.Parallel()
	address := newServer(t).Address()
	storetest.Run(t, func() ampauth.TokenStore {
		var cfg ampauth.Config
		// begin docs/fleets.md

		database := redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: true})
		cfg.Store = &redisstore.Store{Client: database}

		// end docs/fleets.md
		t.Cleanup(func() { _ = database.Close() })
		return cfg.Store
	})
}
