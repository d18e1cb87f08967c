package ampauth_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// Stacked by hand, with somebody else's layer in between.
func ExampleRetryTransport() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "GET /assets", Status: 503, RetryAfter: "0"})

	tokens, err := ampauth.NewTokenManager(amp.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()
	retry := &ampauth.RetryTransport{
		Retry: ampauth.RetryConfig{MaxAttempts: 5, BaseDelay: time.Millisecond, Timeout: 20 * time.Second},
		Base: numbered{
			&ampauth.AuthTransport{Source: tokens, Base: amp.Transport()}, // or http.DefaultTransport
		},
	}
	client := &http.Client{Transport: retry, CheckRedirect: ampauth.CheckRedirect}
	resp, err := client.Get(amp.URL + "/assets")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// attempt 1 of GET /api/assets
	// attempt 2 of GET /api/assets
	// 200 OK
}

// numbered prints the number of each attempt. Above AuthTransport it never sees the token.
type numbered struct{ base http.RoundTripper }

func (l numbered) RoundTrip(req *http.Request) (*http.Response, error) {
	if n, ok := ampauth.AttemptFromContext(req.Context()); ok {
		fmt.Printf("attempt %d of %s %s\n", n, req.Method, req.URL.Path)
	}
	return l.base.RoundTrip(req)
}

// AuthTransport alone attaches the token and retries nothing. A token that the API
// refuses is replaced for the next request.
func ExampleAuthTransport() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})

	tokens, err := ampauth.NewTokenManager(amp.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()
	client := &http.Client{
		Transport:     &ampauth.AuthTransport{Source: tokens, Base: amp.Transport()},
		CheckRedirect: ampauth.CheckRedirect,
	}
	for _, before := range []func(){func() {}, amp.Revoke, func() {}} {
		before()
		resp, err := client.Get(amp.URL + "/assets")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	// Output:
	// 200 OK
	// 401 Unauthorized
	// 200 OK
}

// A TokenManager for those who send requests by other means. Any number of callers share
// one login.
func ExampleTokenManager() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})

	tokens, err := ampauth.NewTokenManager(amp.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()
	ctx := context.Background()
	token, err := tokens.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	err = token.Value.Expose(func(value []byte) error {
		fmt.Println(len(value), "bytes to put behind the word token") // and not to keep
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("printed it is", token.Value)

	amp.Revoke() // by an administrator: the API answers 401
	if _, err = tokens.Renew(ctx, token); err != nil {
		log.Fatal(err)
	}
	info, _ := tokens.Info()
	fmt.Println("valid:", !info.IsExpired, "logins:", amp.Count("POST /user/obtain_token"))
	// Output:
	// 40 bytes to put behind the word token
	// printed it is [REDACTED]
	// valid: true logins: 2
}

// Registering an asset is a mutation, so an answer of 503 is returned: it may have been
// done. Whoever knows that a second registration does no harm says so, for one request.
func ExampleWithOperation() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	const register = "GET /assets/{assetUuid}/register"
	amp := ampauthtest.NewServer(t, ampauthtest.Options{Repeat: []string{register}})
	client := amp.Client()

	for _, ctx := range []context.Context{
		context.Background(),
		ampauth.WithOperation(context.Background(), ampauth.IdempotentOperation),
	} {
		amp.Inject(ampauthtest.Fault{Route: register, AfterIt: true, Status: 503})
		req, err := http.NewRequestWithContext(ctx, "GET", amp.URL+"/assets/6f0e2d1c/register", nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	// Output:
	// 503 Service Unavailable
	// 200 OK
}
