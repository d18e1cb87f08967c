package ampauth

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/ampauth/ampauth/internal/renewal"
)

// What cannot be seen from outside: buffers that are wiped, and a clock that was
// set back.

// An answerBody keeps the buffers it was read into.
type answerBody struct {
	io.Reader
	into [][]byte
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.into = append(b.into, p[:n])
	return n, err
}

func (b *answerBody) Close() error { return nil }

func readTokenFrom(content []byte, reader io.Reader, encoding ...string) (Secret, *answerBody, error) {
	if reader == nil {
		reader = bytes.NewReader(content)
	}
	body := &answerBody{Reader: reader}
	token, err := readToken(&http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Encoding": encoding}, Body: body})
	return token, body, err
}

func TestLoginAnswerIsWipedAfterUse(t *testing.T) {
	for name, content := range map[string]string{
		"a token":       `{"token":"0123456789abcdef0123456789abcdef01234567"}`,
		"with escapes":  `{"token":"0123456789abcdef\u0030"}`,
		"no token":      `{"key":"0123456789abcdef0123456789abcdef01234567"}`,
		"no JSON":       `0123456789abcdef0123456789abcdef01234567`,
		"no header":     `{"token":"0123456789abcdef 0123456789abcdef01234567"}`,
		"above 64 KiB":  `{"token":"` + strings.Repeat("a", 70<<10) + `"}`,
		"one at a time": `{"token":"0123456789abcdef"}`,
	} {
		t.Run(name, func(t *testing.T) {
			var reader io.Reader = strings.NewReader(content)
			if name == "one at a time" {
				reader = io.MultiReader(strings.NewReader(content[:5]), strings.NewReader(content[5:]))
			}
			_, body, _ := readTokenFrom(nil, reader)
			read := 0
			for _, p := range body.into {
				read += len(p)
				if !bytes.Equal(p, make([]byte, len(p))) {
					t.Errorf("%q is left in the buffer", p)
				}
			}
			if read == 0 || read > maxLoginAnswer+1 {
				t.Errorf("%d bytes were read", read)
			}
		})
	}
}

func TestPackedLoginAnswerIsWipedToo(t *testing.T) {
	var content bytes.Buffer
	w := gzip.NewWriter(&content)
	_, _ = w.Write([]byte(`{"token":"0123456789abcdef"}`))
	_ = w.Close()
	token, body, err := readTokenFrom(content.Bytes(), nil, "gzip")
	if err != nil || token.IsZero() || len(body.into) == 0 {
		t.Errorf("there is no token: %v", err)
	}
	for _, p := range body.into {
		if !bytes.Equal(p, make([]byte, len(p))) {
			t.Error("the answer is left in the buffer")
		}
	}
}

func TestLoginAnswerThatBreaksIsWipedToo(t *testing.T) {
	broken := errors.New("broken")
	_, body, err := readTokenFrom(nil, io.MultiReader(strings.NewReader(`{"token":"0123`), errorReader{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
	for _, p := range body.into {
		if !bytes.Equal(p, make([]byte, len(p))) {
			t.Errorf("%q is left in the buffer", p)
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func TestLoginBodyIsWipedWhenClosed(t *testing.T) {
	for name, password := range map[string]string{
		"plain": "correct horse", "all escaped": strings.Repeat("\x01", 100), "long": strings.Repeat(`"\é`, 2000),
	} {
		t.Run(name, func(t *testing.T) {
			body, err := newLoginBody(Credentials{Username: "issuer", Password: SecretFromString(password)})
			if err != nil {
				t.Fatal(err)
			}
			// A buffer that had to grow would have left a copy behind.
			const frame = len(`{"username":"","password":""}`)
			if least := 6*(len("issuer")+len(password)) + frame; cap(body.content) < least || len(body.content) > least {
				t.Errorf("%d bytes in a buffer for %d, which may need %d", len(body.content), cap(body.content), least)
			}
			whole := body.content[:cap(body.content)]
			if _, err := body.Read(make([]byte, 10)); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := body.Close(); err != nil {
					t.Error(err)
				}
			}
			if !bytes.Equal(whole, make([]byte, len(whole))) {
				t.Error("the password is left in the buffer")
			}
			if n, err := body.Read(make([]byte, 10)); n != 0 || err == nil || err == io.EOF {
				t.Errorf("Read after Close = %d, %v", n, err)
			}
		})
	}
}

// net/http may close a body while it still reads it.
func TestLoginBodyMayBeClosedWhileRead(t *testing.T) {
	body, err := newLoginBody(Credentials{Username: "issuer", Password: SecretFromString(strings.Repeat("p", 1<<16))})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []byte)
	go func() {
		content, _ := io.ReadAll(io.LimitReader(body, 1<<20))
		done <- content
	}()
	_ = body.Close()
	if content := <-done; bytes.IndexByte(content, 0) >= 0 {
		t.Error("the wiped buffer was sent")
	}
}

func TestDestroyedPasswordIsAConfigurationFault(t *testing.T) {
	password := SecretFromString("correct horse")
	m, err := NewTokenManager(Config{
		BaseURL: "https://amp.test/api", Credentials: Credentials{Username: "issuer", Password: password},
		HTTPClient: &http.Client{Transport: failingTransport{errors.New("sent")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	password.Destroy()
	_, err = m.Token(t.Context())
	e, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, ErrObtainFailed) || !errors.Is(err, ErrConfig) || e.Attempts > 1 || e.Outcome != NotSent {
		t.Errorf("error is %+v", err)
	}
}

type failingTransport struct{ err error }

func (f failingTransport) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// A tokenServer answers each request for a token with the next letter.
type tokenServer struct{ served atomic.Int32 }

func (s *tokenServer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	letter := string(rune('a' + s.served.Add(1) - 1))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"token":"` + letter + `"}`))}, nil
}

func newServedManager(t *testing.T, lifetime time.Duration) (*TokenManager, *tokenServer) {
	t.Helper()
	server := new(tokenServer)
	m, err := NewTokenManager(Config{
		BaseURL: "https://amp.test/api", Credentials: Credentials{Username: "issuer", Password: SecretFromString("correct horse")},
		HTTPClient: &http.Client{Transport: server}, Lifetime: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, server
}

// futureSnapshot makes the current token one that looks as after the clock was set back by d.
func futureSnapshot(m *TokenManager, d time.Duration) *snapshot {
	s := m.newSnapshot(SecretFromString("from-the-future"))
	s.token.ObtainedAt = s.token.ObtainedAt.Add(d)
	if !s.token.ExpiresAt.IsZero() {
		s.token.ExpiresAt = s.token.ExpiresAt.Add(d)
		s.expireAt += int64(d)
		s.refreshAt += int64(d)
	}
	s.obtainedAt += int64(d)
	s.life = renewal.Life{Obtained: s.token.ObtainedAt}
	if !s.token.ExpiresAt.IsZero() {
		s.life.Due, s.life.End = time.Unix(0, s.refreshAt), time.Unix(0, s.expireAt)
	}
	e := m.epoch.Load()
	s.id = m.known.note(s.token.Value)
	e.renewal.Obtained(s.id, s.life, 0)
	e.current.Store(s)
	return s
}

// After the clock was set back nobody knows when the token ends: it is served,
// and replaced at once.
func TestClockThatWasSetBackMakesATokenStale(t *testing.T) {
	for name, lifetime := range map[string]time.Duration{"with an end": 0, "without end": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, server := newServedManager(t, lifetime)
				defer m.Close()
				futureSnapshot(m, time.Hour)
				token, err := m.Token(t.Context())
				if err != nil || !token.Value.Equal(SecretFromString("from-the-future")) {
					t.Errorf("Token = %v", err)
				}
				synctest.Wait()
				if n := server.served.Load(); n != 1 {
					t.Errorf("%d requests for a token, want 1", n)
				}
				token, err = m.Token(t.Context())
				if err != nil || !token.Value.Equal(SecretFromString("a")) || token.Age() != 0 {
					t.Errorf("Token = %v, %v old", err, token.Age())
				}
				synctest.Wait()
				if n := server.served.Load(); n != 1 {
					t.Errorf("%d requests for a token, want 1", n)
				}
			})
		})
	}
}

func TestTokenFromTheFutureIsSaidToEndSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newServedManager(t, 0)
		defer m.Close()
		m.epoch.Load().current.Store(futureSnapshot(m, time.Hour))
		if info, ok := m.Info(); !ok || !info.ExpiresSoon || info.IsExpired {
			t.Errorf("Info = %+v, %v: a refresh is due", info, ok)
		}
	})
}

// Between a caller's look at the token and its flight another one may have landed.
func TestFlightLooksOnceMoreBeforeItLogsIn(t *testing.T) {
	for name, test := range map[string]struct {
		o    order
		sent int32
	}{
		"none or stale":          {order{purpose: keepFresh}, 0},
		"another was refused":    {order{purpose: replace, rejected: Token{Value: SecretFromString("older")}}, 0},
		"just this was refused":  {order{purpose: replace, rejected: Token{Value: SecretFromString("a")}}, 1},
		"the caller wants it so": {order{purpose: logIn}, 1},
		"the caller wants a new": {order{purpose: refreshFirst}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m, server := newServedManager(t, 0)
			defer m.Close()
			if _, err := m.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := SecretFromString([]string{"a", "b"}[test.sent])
			if token, err := m.await(t.Context(), test.o); err != nil || !token.Value.Equal(want) {
				t.Errorf("the flight: %v, or another token than expected", err)
			}
			if n := server.served.Load() - 1; n != test.sent {
				t.Errorf("%d requests, want %d", n, test.sent)
			}
		})
	}
}

func TestFlightTimeHasRoomForAllThatIsConfigured(t *testing.T) {
	const s = time.Second
	for name, test := range map[string]struct {
		retry  RetryConfig
		stored bool
		want   time.Duration
	}{
		"default":              {RetryConfig{}, false, 162 * s}, // a refresh, 3 attempts, 2 waits of 61 s
		"with a store":         {RetryConfig{}, true, 179 * s},
		"for tests":            {RetryConfigForTests(), false, 15*s + 60*s + 100*time.Millisecond},
		"the least":            {RetryConfig{MaxAttempts: 1}, false, 30 * s},
		"long attempts":        {RetryConfig{MaxAttempts: 2, Timeout: 60 * s}, false, 241 * s},
		"endless attempts":     {RetryConfig{MaxAttempts: 2, Timeout: -1}, false, 241 * s},
		"long backoff":         {RetryConfig{MaxAttempts: 2, MaxDelay: 100 * s}, false, 130 * s},
		"no cap":               {RetryConfig{MaxAttempts: 2, MaxRetryAfter: -1}, false, 91 * s},
		"a thousand attempts":  {RetryConfig{MaxAttempts: 1001}, false, 71020 * s},
		"more than there is":   {RetryConfig{MaxAttempts: math.MaxInt, Timeout: math.MaxInt64}, true, math.MaxInt64},
		"too long for a store": {RetryConfig{MaxAttempts: 1, Timeout: math.MaxInt64/2 - 1}, true, math.MaxInt64},
	} {
		if got := flightTime(test.retry.resolved(), test.stored); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestRefusedTokenFromTheFutureIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, server := newServedManager(t, 0)
		defer m.Close()
		token, err := m.Renew(t.Context(), futureSnapshot(m, 24*time.Hour).token)
		if err != nil || !token.Value.Equal(SecretFromString("a")) {
			t.Errorf("Renew = %v", err)
		}
		if n := server.served.Load(); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
	})
}

// A machine that slept: the wall clock has gone on, the monotonic one has not.
func TestTimesOfATokenAreThoseOfTheWallClock(t *testing.T) {
	m, _ := newServedManager(t, 0)
	defer m.Close()
	stored := Token{Value: SecretFromString("b"), ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute)}
	for name, s := range map[string]*snapshot{"new": m.newSnapshot(SecretFromString("a")), "stored": m.snapshotOf(stored)} {
		for field, at := range map[string]time.Time{"ObtainedAt": s.token.ObtainedAt, "ExpiresAt": s.token.ExpiresAt} {
			if at != at.Round(0) {
				t.Errorf("%s of a %s token holds a reading of the monotonic clock", field, name)
			}
		}
	}
}

func TestRefreshLeadIsWithinTheSecondHalfOfTheLife(t *testing.T) {
	durations := []time.Duration{
		1, 2, 3, 10, time.Millisecond, time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute,
		time.Hour, 24 * time.Hour, 365 * 24 * time.Hour, math.MaxInt64 / 3, math.MaxInt64 / 2, math.MaxInt64 - 1, math.MaxInt64,
	}
	for _, life := range durations {
		for _, window := range durations {
			for range 50 {
				lead := refreshLead(life, window)
				if lead < 0 || lead > life/2 {
					t.Fatalf("refreshLead(%v, %v) = %v", life, window, lead)
				}
				if window <= life/3 && (lead < window || lead > window+window/2) {
					t.Fatalf("refreshLead(%v, %v) = %v", life, window, lead)
				}
			}
		}
	}
	if lead := refreshLead(time.Hour, -1); lead != 0 {
		t.Errorf("refreshLead(1h, -1) = %v", lead)
	}
}

func TestCloseWipesTheHeaderValueToo(t *testing.T) {
	m, _ := newServedManager(t, 0)
	token, err := m.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Value.authorization("token"); err != nil {
		t.Fatal(err)
	}
	_ = m.Close()
	if h := token.Value.ref().header.Load(); h != nil {
		t.Error("the header value is still there")
	}
	if _, err := token.Value.authorization("token"); err == nil {
		t.Error("a wiped token makes a header")
	}
}

func FuzzLoginAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"token":"0123456789abcdef0123456789abcdef01234567"}`, `{"token":"a\u0062\/"}`, `{"token":null}`, `{"token":1}`,
		`{"token":""}`, `{"token":"a b"}`, `{"token":"a\nb"}`, `{"TOKEN":"x"}`, `{"token":"a","token":"b"}`, `{"token":["a"]}`,
		`[]`, `"token"`, ``, `{`, "\ufeff{}", `{"token":"\ud800"}`, "{\"token\":\"\xff\"}", ` {"token":"x"} `, `{"token":"x"}x`,
		`{"token":"` + strings.Repeat("a", maxTokenLength) + `"}`, `{"token":"` + strings.Repeat("a", maxTokenLength+1) + `"}`,
		`{"token":"x"}` + strings.Repeat(" ", maxLoginAnswer),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		token, body, err := readTokenFrom(content, nil)
		for _, p := range body.into {
			if !bytes.Equal(p, make([]byte, len(p))) {
				t.Error("the answer is left in the buffer")
			}
		}
		if err != nil {
			if !errors.Is(err, ErrSerialization) {
				t.Errorf("error is no ErrSerialization: %v", err)
			}
			if !token.IsZero() {
				t.Error("an error and a token")
			}
			return
		}
		var value string
		_ = token.Expose(func(b []byte) error { value = string(b); return nil })
		if len(value) < 1 || len(value) > 4096 {
			t.Errorf("a token of %d bytes was taken", len(value))
		}
		if i := strings.IndexFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
			t.Errorf("a token with %q was taken", value[i])
		}
		var answer struct{ Token string }
		if err := json.Unmarshal(content, &answer); err != nil || answer.Token != value {
			t.Errorf("took %q, encoding/json reads %q, %v", value, answer.Token, err)
		}
	})
}

func FuzzLoginBody(f *testing.F) {
	for _, seed := range [][2]string{
		{"issuer", "correct horse"}, {`"`, `\`}, {"\x00\x1f", "\x7f\u0080"}, {"émetteur", "密码\u2028\U0001f511"},
		{`","password":"`, `"}`}, {"", ""}, {"\ufeff", "\ufffd"}, {"</script>", "\r\n"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, user, password string) {
		if !utf8.ValidString(user) || !utf8.ValidString(password) {
			t.Skip("Config refuses it")
		}
		body, err := newLoginBody(Credentials{Username: user, Password: SecretFromString(password)})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		content, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]string
		if err := json.Unmarshal(content, &fields); err != nil {
			t.Fatalf("not JSON: %v", err)
		}
		if len(fields) != 2 || fields["username"] != user || fields["password"] != password {
			t.Errorf("%q and %q became %q", user, password, fields)
		}
	})
}
