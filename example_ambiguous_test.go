package ampauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// An asset, as far as it takes to tell whether it is the one: Ticker is the issuer's
// own choice, so it is known before the asset is there.
type asset struct {
	UUID   string `json:"asset_uuid,omitempty"`
	Name   string `json:"name"`
	Ticker string `json:"ticker"`
}

type issuer struct {
	client *ampauth.Client
	base   string
}

// issue issues the asset once. When the outcome of that is unknown it looks whether
// the asset is there, for as long as the server may still be at it, and issues it
// again only if it is not. An error that Is ErrAmbiguous says that even reading has
// not told: then a person has to look before anybody issues it again.
func (i issuer) issue(ctx context.Context, a asset) (asset, error) {
	for {
		issued, err := i.post(ctx, a)
		if !errors.Is(err, ampauth.ErrAmbiguous) {
			return issued, err // what happened is known
		}
		for range 12 {
			found, ok, readErr := i.find(ctx, a.Ticker)
			if ok {
				return found, nil
			}
			if readErr != nil {
				return asset{}, fmt.Errorf("%w; then reading failed: %v", err, readErr)
			}
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return asset{}, err
			}
		}
	}
}

func (i issuer) post(ctx context.Context, a asset) (issued asset, err error) {
	body, err := json.Marshal(a)
	if err != nil {
		return asset{}, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", i.base+"/assets/issue", bytes.NewReader(body))
	if err != nil {
		return asset{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := i.client.Do(req)
	if err != nil {
		return asset{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500: // of a gateway, for one: it leaves the outcome just as open
		return asset{}, fmt.Errorf("%s: %w", resp.Status, ampauth.ErrAmbiguous)
	case resp.StatusCode != http.StatusCreated:
		return asset{}, fmt.Errorf("not issued: %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&issued); err != nil {
		return asset{}, fmt.Errorf("issued, but its answer is cut off: %w", err)
	}
	return issued, nil
}

func (i issuer) find(ctx context.Context, ticker string) (found asset, ok bool, err error) {
	req, err := http.NewRequestWithContext(ctx, "GET", i.base+"/assets", nil)
	if err != nil {
		return asset{}, false, err
	}
	resp, err := i.client.Do(req)
	if err != nil {
		return asset{}, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return asset{}, false, errors.New(resp.Status)
	}
	var assets []asset
	if err := json.NewDecoder(resp.Body).Decode(&assets); err != nil {
		return asset{}, false, err
	}
	for _, a := range assets {
		if a.Ticker == ticker {
			return a, true, nil
		}
	}
	return asset{}, false, nil
}

// What to do when it is not known whether a mutation was performed: read first. Here
// the server issues the asset, and the connection breaks before its answer is there.
func ExampleError() {
	amp := fakeamp.New(fakeamp.Config{Users: map[string]string{"issuer": "correct horse"}})
	defer amp.Close()
	server := httptest.NewServer(amp)
	defer server.Close()
	amp.Inject(fakeamp.Fault{Route: "POST /assets/issue", When: fakeamp.After, Do: fakeamp.Reset})

	client, err := ampauth.NewClient(ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	bond, err := issuer{client, server.URL + "/api"}.issue(context.Background(), asset{Name: "Bond", Ticker: "BND26"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bond.Ticker, "is there, issued", len(amp.Effects()), "time")
	// Output: BND26 is there, issued 1 time
}
