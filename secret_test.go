package ampauth_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/ampauth/ampauth"
)

func TestNewSecretWipesItsArgument(t *testing.T) {
	b := []byte(canaryPassword)
	s := ampauth.NewSecret(b)
	if !bytes.Equal(b, make([]byte, len(b))) {
		t.Error("the argument still holds the secret")
	}
	if !s.Equal(ampauth.SecretFromString(canaryPassword)) {
		t.Error("the Secret does not hold what it was given")
	}
}

func TestSecretFromStringKeepsTheString(t *testing.T) {
	text := strings.Clone(canaryToken)
	if got := ampReveal(ampauth.SecretFromString(text)); got != canaryToken || text != canaryToken {
		t.Error("the string or what the Secret holds is not what it was")
	}
}

func TestExposeLendsTheContentAndPassesTheErrorOn(t *testing.T) {
	fault := errors.New("fault")
	var lent string
	err := ampauth.SecretFromString(canaryPassword).Expose(func(b []byte) error { lent = string(b); return fault })
	if lent != canaryPassword || err != fault {
		t.Errorf("lent the content: %t, error %v", lent == canaryPassword, err)
	}
	called := false
	err = ampauth.Secret{}.Expose(func(b []byte) error { called = true; return second(len(b), nil) })
	if !called || err != nil {
		t.Errorf("of the zero value: called %t, error %v", called, err)
	}
}

func TestPanicInExposeGivesTheContentBack(t *testing.T) {
	s := ampauth.SecretFromString(canaryPassword)
	var kept []byte
	func() {
		defer func() { _ = recover() }()
		_ = s.Expose(func(b []byte) error { kept = b; panic("in the borrower") })
	}()
	s.Destroy()
	if !bytes.Equal(kept, make([]byte, len(canaryPassword))) {
		t.Error("Destroy does not wipe after a borrower has panicked")
	}
}

func TestSecretsAreEqualByContent(t *testing.T) {
	destroyed := ampauth.SecretFromString(canaryToken)
	destroyed.Destroy()
	secret := ampauth.SecretFromString
	for _, test := range []struct {
		name  string
		a, b  ampauth.Secret
		equal bool
	}{
		{"same bytes", secret(canaryToken), secret(canaryToken), true},
		{"last byte differs", secret(canaryToken), secret(canaryToken[:39] + "x"), false},
		{"prefix", secret(canaryToken), secret(canaryToken[:39]), false},
		{"zero value and zero value", ampauth.Secret{}, ampauth.Secret{}, true},
		{"zero value and nothing", ampauth.Secret{}, ampauth.NewSecret(nil), true},
		{"zero value and something", ampauth.Secret{}, secret("x"), false},
		{"destroyed and zero value", destroyed, ampauth.Secret{}, false},
		{"destroyed and its content", destroyed, secret(canaryToken), false},
		{"destroyed and zeros", destroyed, ampauth.NewSecret(make([]byte, len(canaryToken))), false},
		{"destroyed and itself", destroyed, destroyed, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if a, b := test.a.Equal(test.b), test.b.Equal(test.a); a != test.equal || b != test.equal {
				t.Errorf("%t, the other way round %t, want %t", a, b, test.equal)
			}
		})
	}
}

func TestIsZeroMeansThereIsNothing(t *testing.T) {
	destroyed := ampauth.SecretFromString(canaryToken)
	destroyed.Destroy()
	for _, test := range []struct {
		name   string
		secret ampauth.Secret
		zero   bool
	}{
		{"zero value", ampauth.Secret{}, true},
		{"from nil", ampauth.NewSecret(nil), true},
		{"from an empty string", ampauth.SecretFromString(""), true},
		{"destroyed", destroyed, true},
		{"a blank", ampauth.SecretFromString(" "), false},
		{"a zero byte", ampauth.NewSecret([]byte{0}), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.secret.IsZero(); got != test.zero {
				t.Errorf("%t, want %t", got, test.zero)
			}
		})
	}
}

func TestDestroyWipesAllCopies(t *testing.T) {
	s := ampauth.SecretFromString(canaryPassword)
	copied := s
	var kept []byte
	if err := s.Expose(func(b []byte) error { kept = b; return nil }); err != nil {
		t.Fatal(err)
	}
	copied.Destroy()
	copied.Destroy()
	if !bytes.Equal(kept, make([]byte, len(canaryPassword))) {
		t.Error("the buffer still holds the secret")
	}
	err := s.Expose(func([]byte) error { t.Error("the content of a destroyed Secret was lent"); return nil })
	if !errors.Is(err, ampauth.ErrDestroyed) {
		t.Errorf("Expose of a copy: %v, want ErrDestroyed", err)
	}
	ampauth.Secret{}.Destroy() // does nothing
}

func TestDestroyWaitsForBorrowersToWipe(t *testing.T) {
	s := ampauth.SecretFromString(canaryPassword)
	var kept []byte
	err := s.Expose(func(outer []byte) error {
		kept = outer
		return s.Expose(func(inner []byte) error {
			s.Destroy()
			if err := s.Expose(func([]byte) error { return nil }); !errors.Is(err, ampauth.ErrDestroyed) {
				t.Errorf("a new borrower after Destroy: %v", err)
			}
			if string(inner) != canaryPassword {
				t.Error("the content was wiped under its borrower")
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	if !bytes.Equal(kept, make([]byte, len(canaryPassword))) {
		t.Error("the last borrower is gone and the content still there")
	}
}

func TestDestroyAmongManyBorrowers(t *testing.T) {
	for range 50 {
		s := ampauth.SecretFromString(canaryPassword)
		var all sync.WaitGroup
		start := make(chan struct{})
		for range 8 {
			all.Go(func() {
				<-start
				for range 50 {
					err := s.Expose(func(b []byte) error {
						if string(b) != canaryPassword {
							t.Error("a borrower sees something else than the secret")
						}
						return nil
					})
					if err != nil && !errors.Is(err, ampauth.ErrDestroyed) {
						t.Error(err)
					}
					_, _, _ = s.IsZero(), s.Equal(s), fmt.Sprintf("%+v", s)
				}
			})
		}
		all.Go(func() { <-start; s.Destroy() })
		close(start)
		all.Wait()
		if !s.IsZero() {
			t.Fatal("the Secret outlives Destroy")
		}
	}
}

func TestDestroyedTokenIsNotSent(t *testing.T) {
	value := ampauth.SecretFromString(canaryToken)
	sent := 0
	transport := &ampauth.AuthTransport{
		Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
			sent++
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		}),
		Source: ampauth.StaticTokenSource(value),
		Origin: "https://amp.test",
	}
	get := func() error {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://amp.test/assets", nil)
		resp, err := transport.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	value.Destroy()
	if err := get(); err == nil || sent != 1 {
		t.Errorf("error %v after %d requests, want one after 1", err, sent)
	}
}

func TestPlaceholderIsRefusedWhenRead(t *testing.T) {
	type settings struct {
		User     string
		Password ampauth.Secret
	}
	path := filepath.Join(t.TempDir(), "config.json")
	text, err := json.Marshal(settings{"issuer", ampauth.SecretFromString(canaryPassword)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var loaded settings
	if err := json.Unmarshal(read, &loaded); err == nil {
		t.Error("a placeholder from a file became a password")
	}
	for _, test := range []struct {
		name   string
		decode func(*settings) error
	}{
		{"JSON", func(s *settings) error { return json.Unmarshal([]byte(`{"Password":"[REDACTED]"}`), s) }},
		{"escaped JSON", func(s *settings) error { return json.Unmarshal([]byte(`{"Password":"\u005bREDACTED]"}`), s) }},
		{"XML", func(s *settings) error {
			return xml.Unmarshal([]byte(`<s><Password>[REDACTED]</Password></s>`), s)
		}},
		{"text", func(s *settings) error { return s.Password.UnmarshalText([]byte("[REDACTED]")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings{Password: ampauth.SecretFromString("before")}
			if err := test.decode(&s); err == nil {
				t.Error("the placeholder was accepted")
			}
			if ampReveal(s.Password) != "before" {
				t.Error("the refusal changed the Secret")
			}
		})
	}
}

func TestSecretIsReadFromText(t *testing.T) {
	quoted, _ := json.Marshal(canaryPassword)
	var fromJSON struct{ Password ampauth.Secret }
	if err := json.Unmarshal([]byte(`{"Password":`+string(quoted)+`}`), &fromJSON); err != nil {
		t.Error("JSON is refused")
	}
	text := []byte(canaryPassword)
	var fromText ampauth.Secret
	if err := fromText.UnmarshalText(text); err != nil {
		t.Error("text is refused")
	}
	if ampReveal(fromJSON.Password) != canaryPassword || ampReveal(fromText) != canaryPassword {
		t.Error("what was read is not the secret")
	}
	if string(text) != canaryPassword {
		t.Error("UnmarshalText wiped the text, which is the decoder's") // encoding.TextUnmarshaler
	}
	clear(text)
	if ampReveal(fromText) != canaryPassword {
		t.Error("the Secret lives in the decoder's buffer")
	}
}

func TestFaultyEncodingsNameNoSecret(t *testing.T) {
	for _, text := range []string{`{"Password":["` + canaryToken + `"]}`, `{"Password":{"` + canaryToken + `":1}}`, `{"Password":12345.678}`} {
		var s struct{ Password ampauth.Secret }
		err := json.Unmarshal([]byte(text), &s)
		if err == nil || leaks(err.Error()) != nil || strings.Contains(err.Error(), "12345.678") {
			t.Error("accepted, or the error quotes what it could not read")
		}
	}
	if _, err := ampauth.SecretFromString(canaryToken).MarshalBinary(); err == nil {
		t.Error("a binary encoding exists, from which nothing could be read back")
	}
}

func TestHoldersOfASecretAreNotComparable(t *testing.T) {
	for _, v := range []any{ampauth.Secret{}, ampauth.Credentials{}, ampauth.Token{}, ampauth.Config{}} {
		if typ := reflect.TypeOf(v); typ.Comparable() {
			t.Errorf("%v can be compared with ==, which is neither by content nor in constant time", typ)
		}
	}
}
