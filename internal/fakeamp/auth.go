package fakeamp

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The five texts by which DRF says that a request is not authenticated. With
// any other text a 403 is about permissions, and a new token does not help.
const (
	textNoCredentials = "Authentication credentials were not provided."
	textUnknownToken  = "Invalid token."
	textNoToken       = "Invalid token header. No credentials provided."
	textSpaces        = "Invalid token header. Token string should not contain spaces."
	textInactive      = "User inactive or deleted."
)

// account is a user with the one token there is at a time.
type account struct {
	password string
	inactive bool
	token    string    // "" if there is none
	expires  time.Time // zero if never
}

// live reports whether the account has a token that is not expired.
func (a *account) live() bool {
	return a.token != "" && (a.expires.IsZero() || time.Now().Before(a.expires))
}

// Token returns the live token of a user, "" if there is none.
func (s *Server) Token(user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[user]; a != nil && a.live() {
		return a.token
	}
	return ""
}

// Password returns the password of a user, "" if there is no such user.
func (s *Server) Password(user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[user]; a != nil {
		return a.password
	}
	return ""
}

// Revoke ends the token of a user, as an administrator can. The next obtain
// makes a new one.
func (s *Server) Revoke(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[user]; a != nil {
		a.token = ""
	}
}

// Rotate refreshes the token of a user on behalf of somebody else who shares
// the account, and returns the new one. For an unknown user it returns "".
func (s *Server) Rotate(user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[user]; a != nil {
		return s.newToken(a)
	}
	return ""
}

// SetPassword gives a user another password and, as AMP's change-password
// does, another token. A user who is not known is added.
func (s *Server) SetPassword(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[user]
	if a == nil {
		a = new(account)
		s.accounts[user] = a
	}
	a.password = password
	s.newToken(a)
}

// SetActive switches the account of a user on or off. While it is off the
// token is refused and the credentials do not log in.
func (s *Server) SetActive(user string, active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[user]; a != nil {
		a.inactive = !active
	}
}

// newToken replaces the token of an account. s.mu is held.
func (s *Server) newToken(a *account) string {
	a.token = randomHex(20) // 40 digits, as DRF's
	a.expires = time.Time{}
	if s.cfg.Lifetime > 0 {
		a.expires = time.Now().Add(s.cfg.Lifetime)
	}
	s.issued[a.token] = true
	return a.token
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // It never fails.
	return hex.EncodeToString(b)
}

// authenticate returns the user of a request, or the text that says why there
// is none. It takes the header apart as DRF's TokenAuthentication does;
// several headers arrive there as one, joined by commas.
func (s *Server) authenticate(r *http.Request) (user, reason string) {
	words := strings.Fields(strings.Join(r.Header.Values("Authorization"), ","))
	switch {
	case len(words) == 0 || !strings.EqualFold(words[0], s.cfg.Scheme):
		return "", textNoCredentials
	case len(words) == 1:
		return "", textNoToken
	case len(words) > 2:
		return "", textSpaces
	}
	for name, a := range s.accounts {
		switch {
		case !a.live() || a.token != words[1]:
		case a.inactive:
			return "", textInactive
		default:
			return name, ""
		}
	}
	return "", textUnknownToken
}

func (s *Server) notAuthenticated(reason string) answer {
	if s.cfg.Forbidden {
		return detail(http.StatusForbidden, reason)
	}
	a := detail(http.StatusUnauthorized, reason)
	a.header.Set("WWW-Authenticate", strings.ToUpper(s.cfg.Scheme[:1])+s.cfg.Scheme[1:])
	return a
}

// obtain logs in. As DRF's get_or_create it returns the token there is; wrong
// credentials are 400, not 401.
func (s *Server) obtain(c *call) answer {
	fields, bad := credentials(c)
	if bad != nil {
		return *bad
	}
	faults := make(map[string]string)
	for _, name := range []string{"username", "password"} {
		if text := textFault(fields, name); text != "" {
			faults[name] = text
		}
	}
	if len(faults) > 0 {
		return fieldErrors(faults)
	}
	a := s.accounts[fields["username"].(string)]
	if a == nil || a.inactive || a.password != fields["password"] {
		return fieldErrors(map[string]string{"non_field_errors": "Unable to log in with provided credentials."})
	}
	if !a.live() || s.cfg.NewTokenEachLogin {
		s.newToken(a)
	}
	ans := jsonAnswer(http.StatusOK, map[string]string{"token": a.token})
	// A client of the API has no use for it, and sends it back only by mistake.
	ans.header.Set("Set-Cookie", "csrftoken="+randomHex(16)+"; Max-Age=31449600; Path=/; SameSite=Lax")
	return ans
}

// credentials reads the login's fields from a form or, by default, from JSON.
// Without a body DRF misses the fields, not the JSON.
func credentials(c *call) (map[string]any, *answer) {
	fields := make(map[string]any)
	contentType, _, _ := mime.ParseMediaType(c.request.Header.Get("Content-Type"))
	switch {
	case len(c.body) == 0:
	case contentType == "application/x-www-form-urlencoded":
		form, _ := url.ParseQuery(string(c.body)) // Django, too, keeps what it understands.
		for name := range form {
			fields[name] = form.Get(name)
		}
	case !validJSON(c.body):
		return nil, new(parseError())
	case json.Unmarshal(c.body, &fields) != nil:
		return nil, new(notAnObject())
	}
	return fields, nil
}

func notAnObject() answer {
	return fieldErrors(map[string]string{"non_field_errors": "Invalid data. Expected a dictionary."})
}

// textFault says what DRF finds wrong with a required text, "" for nothing.
func textFault(fields map[string]any, name string) string {
	value, ok := fields[name]
	text, isText := value.(string)
	switch {
	case !ok:
		return "This field is required."
	case value == nil:
		return "This field may not be null."
	case !isText:
		return "Not a valid string."
	case text == "":
		return "This field may not be blank."
	}
	return ""
}

// refresh replaces the token, for everybody who shares the account.
func (s *Server) refresh(c *call) answer {
	return jsonAnswer(http.StatusOK, map[string]string{"token": s.newToken(s.accounts[c.user])})
}

// changePassword sets the password and replaces the token. AMP really sends
// the new password back.
func (s *Server) changePassword(c *call) answer {
	var fields map[string]any
	if json.Unmarshal(c.body, &fields) != nil {
		return notAnObject()
	}
	if text := textFault(fields, "password"); text != "" {
		return fieldErrors(map[string]string{"password": text})
	}
	a := s.accounts[c.user]
	a.password = fields["password"].(string)
	return passwordAnswer(c.user, a.password, s.newToken(a))
}

func passwordAnswer(user, password, token string) answer {
	return jsonAnswer(http.StatusOK, struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Token    string `json:"token"`
	}{user, password, token})
}
