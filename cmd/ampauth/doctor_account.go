package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ampauth/ampauth"
)

// whoAmI is the read that costs AMP least, and changes nothing.
const whoAmI = "/managers/me"

// examineAccount checks the login and what the token is good for.
func (d *doctor) examineAccount(ctx context.Context) {
	cfg := d.account.Config
	cfg.Store = nil           // the stored token is others'
	cfg.Retry.MaxAttempts = 1 // a second attempt would hide the fault of the first
	refreshed := make(chan error, 1)
	cfg.OnEvent = func(_ context.Context, e ampauth.Event) {
		if e.Name == ampauth.EventRefresh {
			select {
			case refreshed <- e.Err:
			default:
			}
		}
	}
	client, err := ampauth.NewClient(cfg)
	if err != nil { // not after ConfigFromEnv
		d.note(finding{Name: "login", State: findingFailed, Seen: []string{withoutURL(err)}})
		return
	}
	defer client.Close()
	d.block(d.check(ctx, d.blocked, "login", 30*time.Second, func(ctx context.Context) finding { return d.logIn(ctx, client) }))
	d.check(ctx, d.blocked, "read", 30*time.Second, func(ctx context.Context) finding { return d.read(ctx, client) })
	if !d.refresh {
		d.note(finding{
			Name: "refresh", State: findingNotTried, Seen: []string{"it would end the token for all who use the account"},
			Do: []string{"try it with -refresh, if you want that"},
		})
		return
	}
	d.check(ctx, d.blocked, "refresh", 60*time.Second, func(ctx context.Context) finding { return refresh(ctx, client, refreshed) })
}

func (d *doctor) logIn(ctx context.Context, client *ampauth.Client) finding {
	began := time.Now()
	_, err := client.Tokens.Obtain(ctx)
	took := time.Since(began).Round(time.Millisecond)
	switch {
	case errors.Is(err, ampauth.ErrCredentialsRefused):
		d.refused = true
		return failing("AMP refused user name and password", "look at AMP_USERNAME and AMP_PASSWORD or AMP_PASSWORD_FILE, and whether they are of this server: test and live have accounts of their own")
	case err != nil:
		do := "if the base URL is right, wait a little and run this again; FAULTS.md says what is done about it"
		if e, ok := errors.AsType[*ampauth.Error](err); ok && e.StatusCode == http.StatusNotFound {
			do = "look at the path of AMP_API_BASE_URL, which ends in /api at Blockstream"
		}
		return failing(detail(err), do)
	}
	return finding{State: findingOK, Seen: []string{fmt.Sprintf("a token came in %v", took)}}
}

func (d *doctor) read(ctx context.Context, client *ampauth.Client) finding {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.account.URL(whoAmI), nil)
	if err != nil {
		return failing("no request can be made of the base URL", "look at AMP_API_BASE_URL")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return failing(detail(err), "the login went well, so wait a little and run this again")
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
	seen := fmt.Sprintf("GET %s: HTTP %d %s", whoAmI, resp.StatusCode, http.StatusText(resp.StatusCode))
	switch {
	case resp.StatusCode/100 == 2:
		return finding{State: findingOK, Seen: []string{seen}}
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		d.refused = true
		return failing(seen, "AMP gave a token and does not take it here: ask Blockstream whether the account is active and what it may do")
	case resp.StatusCode == http.StatusNotFound:
		return finding{
			State: findingWarning, Seen: []string{seen + ": this server has no such route, so it is not known whether it takes the token"},
			Do: []string{"try a read that you need: ampauth get /assets"},
		}
	}
	return failing(seen, "the login went well, so wait a little and run this again")
}

// refresh tells a refresh from the login that a manager makes in its place.
func refresh(ctx context.Context, client *ampauth.Client, refreshed <-chan error) finding {
	_, err := client.Tokens.Refresh(ctx)
	var refusal error
	select {
	case refusal = <-refreshed:
	case <-time.After(time.Second): // events come after the result
		refusal = errors.New("it was not asked")
		if err != nil {
			refusal = err
		}
	}
	if refusal == nil && err == nil {
		return finding{State: findingOK, Seen: []string{"the token was exchanged for another"}}
	}
	if e, ok := errors.AsType[*ampauth.Error](refusal); ok && (e.StatusCode == http.StatusNotFound || e.StatusCode == http.StatusMethodNotAllowed) {
		return finding{
			State: findingWarning, Seen: []string{fmt.Sprintf("there is none (HTTP %d)", e.StatusCode)},
			Do: []string{"nothing: a login takes its place; Config.RefreshPath is for a server that has it elsewhere"},
		}
	}
	return failing(detail(refusal), "a login takes its place, so this harms little; wait and run it again")
}

// detail is the text of an error without the prefix that all of them have.
func detail(err error) string { return strings.TrimPrefix(withoutURL(err), "ampauth: ") }
