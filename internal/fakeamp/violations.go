package fakeamp

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Violations returns what clients did that a client of AMP must not do, in the
// order it was seen:
//
//   - an Authorization or a Cookie header on a login
//   - two Authorization headers
//   - a password in the body of a request that is no login and sets no password
//   - a token or a password in a query
//   - a body on a GET or HEAD
//   - a body shorter than announced, without Expect and Config.MayLeave
//
// The texts name the route and the fault, never a value.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// inspect looks for violations in a request, of whose body readErr ended the
// reading.
func (s *Server) inspect(c *call, readErr error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, rt := c.request, c.target.route
	where := "unknown route" // The path as sent might hold a secret.
	if c.target.route != nil {
		where = c.target.name
	}
	report := func(text string) {
		s.violations = append(s.violations, where+": "+text)
	}

	if c.target.name == "POST /user/obtain_token" {
		if len(r.Header.Values("Authorization")) > 0 {
			report("login with an Authorization header")
		}
		if len(r.Header.Values("Cookie")) > 0 {
			report("login with a Cookie header")
		}
	}
	if len(r.Header.Values("Authorization")) > 1 {
		report("more than one Authorization header")
	}
	if (rt == nil || !rt.has(withPassword)) && len(c.body) > 0 && (hasPasswordField(c.body) || s.holdsPassword(string(c.body))) {
		report("password in the body")
	}
	if query := plainQuery(r.URL); s.holdsToken(query) || s.holdsPassword(query) {
		report("token or password in the query")
	}
	if len(c.body) > 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		report("body on a " + r.Method)
	}
	if errors.Is(readErr, io.ErrUnexpectedEOF) && r.Header.Get("Expect") == "" && !s.cfg.MayLeave {
		report("body shorter than announced")
	}
}

// plainQuery is the query as sent and, if it can be, unescaped.
func plainQuery(u *url.URL) string {
	if u.RawQuery == "" {
		return ""
	}
	unescaped, _ := url.QueryUnescape(u.RawQuery)
	return u.RawQuery + " " + unescaped
}

// holdsPassword leaves out short passwords, which are found everywhere.
func (s *Server) holdsPassword(text string) bool {
	for _, a := range s.accounts {
		if len(a.password) >= 8 && strings.Contains(text, a.password) {
			return true
		}
	}
	return false
}

func (s *Server) holdsToken(text string) bool {
	if len(text) < 40 {
		return false // The usual case, and there may be many tokens.
	}
	for token := range s.issued {
		if strings.Contains(text, token) {
			return true
		}
	}
	return false
}

// hasPasswordField finds a password that is none of ours, such as one that was
// just changed, by the name of its field.
func hasPasswordField(body []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) == nil {
		_, ok := fields["password"]
		return ok
	}
	form, err := url.ParseQuery(string(body))
	return err == nil && form.Has("password")
}
