package redisstore_test

import (
	"context"
	"log"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/redisstore"
	"github.com/redis/go-redis/v9"
)

// silent takes what go-redis writes to stderr otherwise: each dial that fails, for one.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// All machines that have this log in once, together.
func ExampleStore() {
	redis.SetLogger(silent{})
	options, err := redis.ParseURL("rediss://ampauth@redis.internal:6379")
	if err != nil {
		log.Fatal(err)
	}
	options.ContextTimeoutEnabled = true
	database := redis.NewClient(options)
	defer database.Close()

	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	cfg.Store = &redisstore.Store{Client: database}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	resp, err := client.Get(cfg.URL("/assets"))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
}
