package pgstore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Each process of the fleet has the same: one token for all, one login at a time.
func ExampleStore() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal("DATABASE_URL cannot be read") // the error may show its password
	}
	defer pool.Close()
	if err := pgstore.CreateSchema(ctx, pool); err != nil { // unless a migration does it
		log.Print(err) // a store that fails costs logins, and no calls
	}
	cfg, err := ampauth.ConfigFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	cfg.Store = &pgstore.Store{Pool: pool}
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
	fmt.Println(resp.Status)
}
