package ampauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// An issuance that is performed once, whatever happens to its answer. Here the connection
// breaks behind it, and Once finds it by its ticker.
func ExampleOnce() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "POST /assets/issue", AfterIt: true, Reset: true})
	client := amp.Client()

	type asset struct {
		Name   string `json:"name"`
		Ticker string `json:"ticker"` // no other asset has it
	}
	want := asset{Name: "Bond", Ticker: "BND26"}
	body, err := json.Marshal(want)
	if err != nil {
		log.Fatal(err)
	}
	got, err := ampauth.Once(context.Background(), ampauth.RetryConfig{}, ampauth.Mutation[asset]{
		Send: func(ctx context.Context) (issued asset, err error) {
			return issued, exchangeJSON(ctx, client, "POST", amp.URL+"/assets/issue", body, &issued)
		},
		Find: func(ctx context.Context) (asset, bool, error) {
			var all []asset
			if err := exchangeJSON(ctx, client, "GET", amp.URL+"/assets", nil, &all); err != nil {
				return asset{}, false, err
			}
			for _, a := range all {
				if a.Ticker == want.Ticker {
					return a, true, nil
				}
			}
			return asset{}, false, nil
		},
		Settle: time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.Ticker, "is there, issued", len(amp.Effects()), "time")
	// Output: BND26 is there, issued 1 time
}

// exchangeJSON makes one request and decodes its answer.
func exchangeJSON(ctx context.Context, client *ampauth.Client, method, url string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := ampauth.ResponseError(resp); err != nil {
		return err
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
