module github.com/ampauth/ampauth/redisstore

go 1.26.0

// Until the root module is tagged: users need the same line, with a path to a clone.
replace github.com/ampauth/ampauth => ../

require (
	github.com/ampauth/ampauth v0.0.0
	github.com/go-redis/redis_rate/v10 v10.0.1
	github.com/redis/go-redis/v9 v9.23.0
	golang.org/x/time v0.16.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/gofrs/flock v0.13.2 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
