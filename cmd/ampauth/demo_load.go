package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth"
)

// The routes that the workers use, as the fake names them.
const (
	issueRoute   = "POST /assets/issue"
	assetsRoute  = "GET /assets"
	balanceRoute = "GET /assets/{assetUuid}/balance"
	assetRoute   = "GET /assets/{assetUuid}"
	managerRoute = "GET /managers/me"
	// lockRoute may be repeated, but net/http does not do that by itself, as it
	// does with a GET on a connection that was used before.
	lockRoute = "PUT /assets/{assetUuid}/lock"
)

// someAsset is what a worker asks for before it has issued one of its own.
const someAsset = "00000000-0000-4000-8000-000000000000"

const (
	// callsPerSecond is the pace of all workers together. Each issuance takes a
	// connection of its own, and so a port for the minute after it.
	callsPerSecond = 800
	// callTime is far more than any call needs: one that takes longer hangs.
	callTime = 20 * time.Second
)

// A load is the workers and what they were told.
type load struct {
	client *ampauth.Client
	base   string
	retry  ampauth.RetryConfig // for Once
	seed   uint64
	pause  time.Duration // between two calls of a worker, on average
	way    atomic.Int32  // see issueBy
	turn   atomic.Int64  // see settle
	ended  []atomic.Int64

	mu        sync.Mutex // guards all below
	overall   latencies
	recent    latencies // since the last look
	succeeded int
	mutations []call
	failures  []call // of anything but mutations
}

// A call is how one request ended, for the worker that made it.
type call struct {
	route string
	id    string // of a mutation: what the fake's log knows it by
	once  bool   // through Once
	end   ending
	told  string // status or error, if it did not succeed
}

// An ending is what a worker can take a call's result for.
type ending int

const (
	failed     ending = iota
	succeeded         // 2xx
	ambiguous         // an error that Is ErrAmbiguous
	badGateway        // 502
)

func newLoad(client *ampauth.Client, base string, retry ampauth.RetryConfig, o demoOptions) *load {
	return &load{
		client: client,
		base:   base,
		retry:  retry,
		seed:   o.seed,
		pause:  time.Duration(o.workers) * time.Second / callsPerSecond,
		ended:  make([]atomic.Int64, o.workers),
	}
}

// settle waits until every worker has ended a call that began after now. Then
// all that began before now have ended too.
func (l *load) settle() {
	turn := l.turn.Add(1)
	for n := range l.ended {
		for l.ended[n].Load() < turn {
			time.Sleep(time.Millisecond)
		}
	}
}

// work makes one call after the other until ctx ends.
func (l *load) work(ctx context.Context, n int) {
	w := worker{
		load:  l,
		name:  fmt.Sprintf("worker-%d", n),
		dice:  rand.New(rand.NewPCG(l.seed, uint64(n)+1)),
		asset: someAsset,
	}
	for ctx.Err() == nil {
		turn := l.turn.Load()
		w.call()
		l.ended[n].Store(turn)
		sleep(ctx, l.pause/2+time.Duration(w.dice.Int64N(int64(l.pause))))
	}
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

type worker struct {
	load   *load
	name   string
	dice   *rand.Rand
	asset  string // one that exists
	issued int
}

// call makes one call: two in ten issue, one of them through Once, two lock, six read.
func (w *worker) call() {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	c := call{}
	body := ""
	switch n := w.dice.IntN(10); {
	case n < 2:
		w.issued++
		c.route, c.id = issueRoute, fmt.Sprintf("%s-issue-%d", w.name, w.issued)
		c.once = w.load.isByOnce(n == 0)
		body = `{"name":"` + c.id + `","amount":100,"precision":0,"ticker":"DEMO","domain":"demo.example"}`
	case n < 4:
		c.route = lockRoute
	case n < 7:
		c.route = balanceRoute
	case n < 9:
		c.route = managerRoute
	case w.asset == someAsset:
		c.route = balanceRoute
	default:
		c.route = assetRoute
	}
	began := time.Now()
	var issued asset
	if c.once {
		issued = w.issueOnce(ctx, &c, body)
	} else if answer := w.send(ctx, &c, body); c.id != "" && c.end == succeeded {
		_ = json.Unmarshal(answer, &issued)
	}
	w.load.record(c, time.Since(began))
	if issued.UUID != "" {
		w.asset = issued.UUID
	}
}

// send makes the request and notes how it ended.
func (w *worker) send(ctx context.Context, c *call, body string) (answer []byte) {
	req, err := w.request(ctx, c.route, c.id, body)
	if err != nil {
		c.told = err.Error()
		return nil
	}
	resp, err := w.load.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		answer, err = io.ReadAll(resp.Body)
	}
	switch {
	case errors.Is(err, ampauth.ErrAmbiguous):
		c.end, c.told = ambiguous, err.Error()
	case err != nil:
		c.told = err.Error()
	case resp.StatusCode/100 == 2:
		c.end = succeeded
	case resp.StatusCode == http.StatusBadGateway:
		c.end, c.told = badGateway, "HTTP 502"
	default:
		c.told = fmt.Sprintf("HTTP %d", resp.StatusCode)
	}
	return answer
}

// request makes the request of a route, without a body if that is "".
func (w *worker) request(ctx context.Context, route, id, body string) (*http.Request, error) {
	method, path, _ := strings.Cut(strings.Replace(route, "{assetUuid}", w.asset, 1), " ")
	var content io.Reader // no typed nil, which http.NewRequest would take for a body
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.load.base+path, content)
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if id != "" {
		req.Header.Set("X-Operation-Id", id)
	}
	return req, nil
}

func (l *load) record(c call, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.overall.add(took)
	l.recent.add(took)
	if c.end == succeeded {
		l.succeeded++
	}
	switch {
	case c.id != "":
		l.mutations = append(l.mutations, c)
	case c.end != succeeded:
		l.failures = append(l.failures, c)
	}
}
