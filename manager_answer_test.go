package ampauth_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPackedAnswerToALoginIsReadOrNamed(t *testing.T) {
	const token = `{"token":"canary-0123456789"}`
	bomb := packed(t, `{"token":"canary-0123456789","padding":"`+strings.Repeat("a", 8<<20)+`"}`)
	// Empty parts without end unpack to nothing.
	empty := strings.Repeat(packed(t, ""), 70<<10/len(packed(t, "")))
	for name, test := range map[string]struct{ encoding, body, says string }{
		"gzip":                     {"gzip", packed(t, token), ""},
		"its old name":             {"x-gzip", packed(t, token), ""},
		"in upper case":            {"GZIP", packed(t, token), ""},
		"in parts":                 {"gzip", packed(t, token[:10]) + packed(t, token[10:]), ""},
		"none":                     {"identity", token, ""},
		"exactly 64 KiB":           {"gzip", packed(t, token+strings.Repeat(" ", 64<<10-len(token))), ""},
		"one above 64 KiB":         {"gzip", packed(t, token+strings.Repeat(" ", 64<<10-len(token)+1)), "larger than 64 KiB"},
		"a bomb":                   {"gzip", bomb, "larger than 64 KiB"},
		"empty parts":              {"gzip", empty, "larger than 64 KiB"},
		"not packed":               {"gzip", token, "not the gzip that its Content-Encoding says"},
		"cut":                      {"gzip", packed(t, token)[:20], "not the gzip"},
		"nothing":                  {"gzip", "", "not the gzip"},
		"no token in it":           {"gzip", packed(t, `{"key":"canary"}`), "not a JSON object with a token"},
		"br":                       {"br", "canary", "is encoded as br, which was not asked for"},
		"zstd":                     {"zstd", "canary", "is encoded as zstd,"},
		"twice":                    {"gzip, gzip", "canary", "is encoded as something unknown,"},
		"a word of somebody's own": {"canary-0123456789", "canary", "is encoded as something unknown,"},
		"a long one":               {strings.Repeat("canary", 3), "canary", "is encoded as something unknown,"},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, 200, test.body, "Content-Encoding", test.encoding)
				var log ampLog
				m := w.manager(log.into)
				got, err := m.Token(t.Context())
				w.wantSent(1, 0)
				if test.says == "" {
					if err != nil || ampReveal(got.Value) != "canary-0123456789" {
						t.Errorf("the token was not taken: %v", err)
					}
					return
				}
				e := stubError(t, err, ampauth.ErrObtainFailed, ampauth.ErrSerialization)
				if e.StatusCode != 200 || e.Outcome != ampauth.Answered || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v, want %q", err, test.says)
				}
				synctest.Wait()
				if strings.Contains(err.Error()+log.String(), "canary") {
					t.Errorf("the answer is echoed: %v", err)
				}
			})
		})
	}
}

func TestPackedRefusalIsReadOrNamed(t *testing.T) {
	const refusal = `{"non_field_errors":["Unable to log in with provided credentials."]}`
	for name, test := range map[string]struct {
		encoding, body, says string
		refused              bool
		logins               int
	}{
		"gzip":   {"gzip", packed(t, refusal), "check user name and password", true, 1},
		"a bomb": {"gzip", packed(t, `"`+strings.Repeat("a", 1<<20)+`"`), "larger than 64 KiB", false, 3},
		"br":     {"br", "canary", "is encoded as br,", false, 1},
		"cut":    {"gzip", packed(t, refusal)[:30], "not the gzip", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, 400, test.body, "Content-Encoding", test.encoding)
				_, err := w.manager().Token(t.Context())
				if e := stubError(t, err, ampauth.ErrObtainFailed); e.StatusCode != 400 || !strings.Contains(err.Error(), test.says) ||
					errors.Is(err, ampauth.ErrCredentialsRefused) != test.refused {
					t.Errorf("got %v, want %q", err, test.says)
				}
				w.wantSent(test.logins, 0)
			})
		})
	}
}

func TestPackedAnswerToARefreshIsReadOrNamed(t *testing.T) {
	for name, test := range map[string]struct {
		encoding, body, says string
		logins               int
	}{
		"gzip": {"gzip", packed(t, `{"token":"refreshed"}`), "token refreshed", 1},
		"br":   {"br", "canary", "is encoded as br,", 2},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampRefresh, 200, test.body, "Content-Encoding", test.encoding)
				var log ampLog
				m := w.manager(log.into)
				w.token(m)
				if _, err := m.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if !strings.Contains(log.String(), test.says) {
					t.Errorf("the log does not say %q:\n%s", test.says, log.String())
				}
				w.wantSent(test.logins, 1)
			})
		})
	}
}
