package ampauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// What stands between the marks is in docs/exactly-once.md, word for word.

// begin docs/exactly-once.md

// An Asset, as far as it takes to issue it and to tell whether it is the one.
type Asset struct {
	UUID   string `json:"asset_uuid,omitempty"`
	Name   string `json:"name"`
	Ticker string `json:"ticker"` // with Domain, what no other asset of ours has
	Domain string `json:"domain"`
	// and amount, destination_address, pubkey, precision, ...
}

// issueExactlyOnce issues the asset exactly once, if nobody else does so meanwhile.
// afterCrash says that somebody may have begun to before.
func issueExactlyOnce(ctx context.Context, client *ampauth.Client, base string, want Asset, afterCrash bool) (Asset, error) {
	body, err := json.Marshal(want)
	if err != nil {
		return Asset{}, err
	}
	return ampauth.Once(ctx, ampauth.DefaultRetryConfig(), ampauth.Mutation[Asset]{
		Send: func(ctx context.Context) (Asset, error) {
			return callAMP[Asset](ctx, client, "POST", base+"/assets/issue", body)
		},
		Find: func(ctx context.Context) (Asset, bool, error) {
			assets, err := callAMP[[]Asset](ctx, client, "GET", base+"/assets/", nil)
			if err == nil && assets == nil {
				err = errors.New("the answer is no list of assets")
			}
			for _, a := range assets {
				if err == nil && a.Ticker == want.Ticker && a.Domain == want.Domain {
					return a, true, nil
				}
			}
			return Asset{}, false, err
		},
		Settle:    5 * time.Minute,
		FindFirst: afterCrash,
	})
}

// callAMP makes one call of AMP's API and decodes what it answers.
func callAMP[T any](ctx context.Context, client *ampauth.Client, method, url string, body []byte) (answer T, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := ampauth.ResponseError(resp); err != nil {
		return answer, err
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	return answer, err
}

// end docs/exactly-once.md

// The connection breaks behind the issuance; Once finds it, and sends it no second time.
func ExampleOnce() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "POST /assets/issue", AfterIt: true, Reset: true})

	want := Asset{Name: "Bond 2026", Ticker: "BND26", Domain: "bonds.example"}
	bond, err := issueExactlyOnce(context.Background(), amp.Client(), amp.URL, want, false)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bond.Ticker, "is there, issued", len(amp.Effects()), "time")
	// Output: BND26 is there, issued 1 time
}
