package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ampauth/ampauth"
)

// settleTime is short, since nothing is performed late here: the fake resets a
// connection before the effect or after it, and answers 502 after it.
const settleTime = 100 * time.Millisecond

// A way is how the workers issue.
type way int32

const (
	eitherWay   way = iota // half of it through Once
	plainly                // one request, whose end may be in doubt
	throughOnce            // until it is known
)

// issueBy says how the workers issue from their next call on.
func (l *load) issueBy(w way) { l.way.Store(int32(w)) }

// isByOnce reports whether to issue through Once, where it may be either way as
// the worker would.
func (l *load) isByOnce(would bool) bool {
	switch way(l.way.Load()) {
	case plainly:
		return false
	case throughOnce:
		return true
	default:
		return would
	}
}

// An asset, as far as it takes to tell whether it is the one.
type asset struct {
	UUID string `json:"asset_uuid"`
	Name string `json:"name"` // the issuer's choice, and no other has it
}

// issueOnce issues an asset whose name is the call's id, and notes how that ended.
func (w *worker) issueOnce(ctx context.Context, c *call, body string) asset {
	issued, err := ampauth.Once(ctx, w.load.retry, ampauth.Mutation[asset]{
		Send: func(ctx context.Context) (asset, error) {
			return ask[asset](ctx, w, c.route, c.id, body)
		},
		Find: func(ctx context.Context) (asset, bool, error) {
			assets, err := ask[[]asset](ctx, w, assetsRoute, "", "")
			if err == nil && assets == nil {
				err = errors.New("the list of assets is none")
			}
			for _, a := range assets {
				if a.Name == c.id {
					return a, true, nil
				}
			}
			return asset{}, false, err
		},
		Settle: settleTime,
	})
	switch {
	case err != nil:
		c.told = err.Error()
	case issued.Name != c.id:
		c.told = "Once returned another asset"
	default:
		c.end = succeeded
	}
	return issued
}

// ask makes a request and decodes its answer.
func ask[T any](ctx context.Context, w *worker, route, id, body string) (answer T, err error) {
	req, err := w.request(ctx, route, id, body)
	if err != nil {
		return answer, err
	}
	resp, err := w.load.client.Do(req)
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
