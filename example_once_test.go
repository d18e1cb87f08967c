package ampauth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// An issuance exactly once. The ticker is the issuer's own choice, made and written down
// before anything is sent, so it tells whether the asset is there. Here the server issues it
// half a second after the connection broke, when the first read has not found it.
func ExampleOnce() {
	amp := fakeamp.New(fakeamp.Config{Users: map[string]string{"issuer": "correct horse"}})
	defer amp.Close()
	server := httptest.NewServer(amp)
	defer server.Close()
	amp.Inject(fakeamp.Fault{Route: "POST /assets/issue", When: fakeamp.After, Do: fakeamp.Reset, Late: 500 * time.Millisecond})

	client, err := ampauth.NewClient(ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	type asset struct{ Name, Ticker string }
	do := func(ctx context.Context, method, path, body string, into any) error {
		req, err := http.NewRequestWithContext(ctx, method, server.URL+"/api"+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := ampauth.ResponseError(resp); err != nil {
			return err
		}
		return json.NewDecoder(resp.Body).Decode(into)
	}
	bond, err := ampauth.Once(context.Background(), ampauth.RetryConfig{}, ampauth.Mutation[asset]{
		Send: func(ctx context.Context) (issued asset, err error) {
			err = do(ctx, "POST", "/assets/issue", `{"name": "Bond", "ticker": "BND26"}`, &issued)
			return issued, err
		},
		Find: func(ctx context.Context) (found asset, ok bool, err error) {
			var assets []asset
			if err := do(ctx, "GET", "/assets", "", &assets); err != nil {
				return asset{}, false, err
			}
			for _, a := range assets {
				if a.Ticker == "BND26" {
					return a, true, nil
				}
			}
			return asset{}, false, nil
		},
	})
	if err != nil {
		log.Fatal(err) // errors.Is(err, ampauth.ErrAmbiguous): a person has to look
	}
	fmt.Println(bond.Ticker, "is there, issued", len(amp.Effects()), "time")
	// Output: BND26 is there, issued 1 time
}
