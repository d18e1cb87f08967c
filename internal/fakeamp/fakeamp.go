// Package fakeamp is a strict fake of the Blockstream AMP API, as an
// [http.Handler]: for tests, for demonstrations, and as a description of the
// wire that can be run.
//
// AMP is a Django REST framework (DRF) service with DRF's token
// authentication; bodies, headers and the order of checks follow it. A user
// has one token. Obtaining it again returns the same one; a refresh or a
// change of the password replaces it for everybody at once.
//
// Every operation of the API is there (see [Routes]) and asks for the token.
// What was created here can be read again and is in the lists: assets with
// their assignments, distributions, reissuances and treasury addresses,
// registered users, categories, managers. An operation on something else
// answers with a fixed body of the right shape for any id, and fields of a
// request are not validated, but for the list of assignments. What counts is in
// the log: [Server.Effects] has one entry for every operation performed that must
// not be performed twice, so a request that was sent once too often is visible.
//
// Faults of network, proxies and server are scripted with [Server.Inject].
// Faults of the client are collected in [Server.Violations].
//
// The package imports nothing of the module, so that client and fake cannot
// share a mistake.
package fakeamp

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says how the fake behaves where sources about AMP disagree, or where
// a test needs something else. The zero value is AMP as it is best known, with
// one user "issuer" whose password is "correct horse".
type Config struct {
	// Base is the path in front of every route. If empty, "/api".
	Base string

	// Users maps user names to passwords. If nil, the one user above.
	Users map[string]string

	// Lifetime of a token. If zero, a token does not end by time.
	Lifetime time.Duration

	// Forbidden answers requests that are not authenticated with 403 and no
	// WWW-Authenticate, instead of 401. DRF does either, depending on how the
	// server is set up; which one AMP does is not known.
	Forbidden bool

	// NewTokenEachLogin makes every obtain end the token before. It is not
	// AMP's way, but that of other services a client may meet.
	NewTokenEachLogin bool

	// Scheme is the word in front of the token in the Authorization header,
	// compared without case. If empty, "token".
	Scheme string

	// NoRefresh leaves out the refresh endpoint, which then answers 404.
	NoRefresh bool

	// MayLeave makes no violation of a body that is shorter than announced. Over HTTP/1
	// that of a client which leaves in the middle looks the same.
	MayLeave bool
}

// A Server is the fake. Make it with [New]; all methods are safe for
// concurrent use. Inside a testing/synctest bubble, make it in the bubble.
type Server struct {
	base   string
	cfg    Config
	routes []route // in the order of matching

	closed    chan struct{} // closed by Close; releases stalled requests
	closeOnce sync.Once

	mu         sync.Mutex // guards everything below; never held while reading or writing a request
	accounts   map[string]*account
	issued     map[string]bool // every token there ever was, to find it where it should not be
	state      state
	counts     map[string]int
	effects    []Effect
	performed  map[sameness]int // the Seq of the first effect
	violations []string
	faults     []*armedFault
	injected   map[string]int
	late       []*lateCall // in the order of their answers
}

// New returns a fake with the users of cfg, none of which has a token yet.
func New(cfg Config) *Server {
	if cfg.Base == "" {
		cfg.Base = "/api"
	}
	if cfg.Users == nil {
		cfg.Users = map[string]string{"issuer": "correct horse"}
	}
	if cfg.Scheme == "" {
		cfg.Scheme = "token"
	}
	s := &Server{
		base:      strings.TrimRight(cfg.Base, "/"),
		cfg:       cfg,
		closed:    make(chan struct{}),
		accounts:  make(map[string]*account),
		issued:    make(map[string]bool),
		counts:    make(map[string]int),
		injected:  make(map[string]int),
		performed: make(map[sameness]int),
		state:     state{deleted: make(map[string]bool)},
	}
	for user, password := range cfg.Users {
		s.accounts[user] = &account{password: password}
	}
	s.routes = slices.DeleteFunc(inOrder(routes), func(rt route) bool {
		return cfg.NoRefresh && rt.path == refreshPath
	})
	return s
}

// Close releases every request that a fault keeps waiting, and those to come:
// their connections are cut. Everything else is answered as before. Call it
// before closing an HTTP server, which waits for its requests.
func (s *Server) Close() {
	s.closeOnce.Do(func() { close(s.closed) })
}

// call is one request on its way through the fake.
type call struct {
	request *http.Request
	target  target
	body    []byte
	user    string // set once authenticated
	fault   string // name of the fault that applies, or ""
}

// ServeHTTP answers one request as AMP would, or as a fault wants it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{request: r, target: s.resolve(r)}
	f := s.arrive(c.target.name)
	c.fault = f.Name

	if f.Do == EarlyAnswer {
		s.inspect(c, nil)
		s.pause(r, f.Delay)
		s.answerEarly(w, r, f)
		return
	}

	// The body comes first, whatever happens then: an HTTP/1 server notices
	// that a client has left only after it has read the body.
	body, err := io.ReadAll(r.Body)
	c.body = body
	s.inspect(c, err)
	if err != nil {
		// Half a request is not acted on.
		abort()
	}

	if f.When == Before {
		s.pause(r, f.Delay)
	}
	var a answer
	switch {
	case f.Late > 0:
		s.mu.Lock()
		refusal := s.check(c)
		s.mu.Unlock()
		if refusal != nil { // nobody works on that
			s.send(w, r, *refusal, None)
			return
		}
		defer s.performAfter(f.Late, c) // however this ends
	case f.When == After || !f.replacesAnswer():
		a = s.handle(c)
	}
	if f.When == After {
		s.pause(r, f.Delay)
	}
	s.send(w, r, f.amend(a, r), f.Do)
}

// arrive counts a request and returns the fault that applies to it; the zero
// Fault is none.
func (s *Server) arrive(name string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[name]++
	return s.takeFault(name)
}

// handle does what the request asks for. It holds the lock throughout, so that
// requests are handled one after the other and an effect is logged in the
// moment it happens.
func (s *Server) handle(c *call) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refusal := s.check(c); refusal != nil {
		return *refusal
	}
	return s.perform(c)
}

// check returns the answer to a request for which there is nothing to perform, or
// nil. It follows the order of DRF's APIView: who asks comes before what is
// asked for, so a wrong method without a token is 401, not 405. s.mu is held.
func (s *Server) check(c *call) *answer {
	switch {
	case c.target.redirect:
		return new(slashRedirect(c.request))
	case c.target.route == nil:
		return new(notFound())
	}
	rt := c.target.route
	if !rt.has(open) {
		user, reason := s.authenticate(c.request)
		if reason != "" {
			return new(c.framed(s.notAuthenticated(reason)))
		}
		c.user = user
	}
	switch {
	case c.request.Method == http.MethodOptions:
		return new(c.framed(jsonAnswer(http.StatusOK, map[string]any{
			"renders": []string{"application/json"},
			"parses":  []string{"application/json"},
		})))
	case c.target.method != rt.method:
		return new(c.framed(methodNotAllowed(c.request.Method)))
	case rt.has(withBody) && !validJSON(c.body):
		return new(c.framed(parseError()))
	}
	return nil
}

// perform does what a request asks for that was checked. s.mu is held.
func (s *Server) perform(c *call) answer {
	rt := c.target.route
	a := rt.view(s, c)
	if rt.class == never && a.status < 400 {
		s.logEffect(c)
	}
	return c.framed(a)
}

// framed gives an answer the fields that DRF gives all of a route.
func (c *call) framed(a answer) answer {
	a.header.Set("Allow", c.target.route.allow())
	a.header.Set("Vary", "Accept, Cookie")
	return a
}

// Count returns how many requests were seen on a route, such as
// "GET /assets/{assetUuid}": method and template, no slash at the end. A HEAD
// counts as GET, and a request that met a fault or is redirected for want of a
// slash counts as any other. A request that fits no route counts under its
// method and its path behind the base.
func (s *Server) Count(route string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[route]
}

// Counts returns what Count returns, for all routes that were asked for.
func (s *Server) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}
