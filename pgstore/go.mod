module github.com/ampauth/ampauth/pgstore

go 1.26.0

// Until the root module is tagged: users need the same line, with a path to a clone.
replace github.com/ampauth/ampauth => ../

require (
	github.com/ampauth/ampauth v0.0.0
	github.com/jackc/pgx/v5 v5.13.0
)

require (
	github.com/gofrs/flock v0.13.2 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)
