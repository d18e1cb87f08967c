package ampauth_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"expvar"
	"fmt"
	htmltemplate "html/template"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	texttemplate "text/template"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/google/go-cmp/cmp"
)

// canaryUser is no secret: where a dump shows it, the dump got that far.
const canaryUser = "the-visible-issuer"

func canaryCredentials() ampauth.Credentials {
	return ampauth.Credentials{Username: canaryUser, Password: ampauth.SecretFromString(canaryPassword)}
}

func canaryTokenValue() ampauth.Token {
	return ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
}

// canaryConfig is a Config over a network that logs in with the canaries.
func canaryConfig() ampauth.Config {
	network := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		body := "{}"
		switch {
		case strings.HasSuffix(req.URL.Path, "/obtain_token"):
			body = `{"token":"` + canaryToken + `"}`
		case strings.HasSuffix(req.URL.Path, "/refresh-token"):
			body = `{"token":"` + canaryRenewedToken + `"}`
		}
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
	})
	return ampauth.Config{
		BaseURL:     "https://amp.test/api",
		Credentials: canaryCredentials(),
		HTTPClient:  &http.Client{Transport: network},
	}
}

// canaryClient returns a client that has sent requests with two tokens.
func canaryClient() (*ampauth.Client, error) {
	client, err := ampauth.NewClient(canaryConfig())
	if err != nil {
		return nil, err
	}
	for range 2 {
		resp, err := client.Get("https://amp.test/api/assets")
		if err != nil {
			return nil, err
		}
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
		if _, err := client.Tokens.Refresh(context.Background()); err != nil {
			return nil, err
		}
	}
	return client, nil
}

// Holders of a value, at every place from which printers reach it.
type (
	exportedHolder[T any]   struct{ Held T }
	unexportedHolder[T any] struct {
		name string
		held T
	}
	nestedHolder[T any] struct {
		Outer   exportedHolder[unexportedHolder[T]]
		pointer *unexportedHolder[*T]
		list    []exportedHolder[T]
		table   map[string]unexportedHolder[T]
		any     any
	}
)

func positions[T any](v T) map[string]any {
	unexported := unexportedHolder[T]{"holder", v}
	pointing := unexportedHolder[*T]{"holder", &v}
	return map[string]any{
		"itself":                       v,
		"pointer":                      &v,
		"exported field":               exportedHolder[T]{v},
		"pointer to exported field":    &exportedHolder[T]{v},
		"unexported field":             unexported,
		"pointer to unexported field":  &unexported,
		"pointer in unexported field":  pointing,
		"pointer to pointer to field":  &pointing,
		"slice":                        []T{v},
		"slice of pointers":            []*T{&v},
		"array":                        [1]T{v},
		"map":                          map[string]T{"key": v},
		"map of pointers":              map[string]*T{"key": &v},
		"map of structs":               map[string]unexportedHolder[T]{"key": unexported},
		"interface in unexported part": unexportedHolder[any]{"holder", v},
		"nested": nestedHolder[T]{
			exportedHolder[unexportedHolder[T]]{unexported}, &pointing,
			[]exportedHolder[T]{{v}}, map[string]unexportedHolder[T]{"key": unexported}, unexported,
		},
	}
}

// sinks returns everything that the standard library, and a walker by reflection,
// can be made to say about v.
func sinks(v any) map[string]string {
	said := make(map[string]string)
	for _, verb := range "vTtbcdoOqxXUeEfFgGspwZ" {
		for _, flags := range []string{"", "+", "#", " ", "-", "0", "# ", "+#", "200", "+.500"} {
			format := "%" + flags + string(verb)
			said[format] = fmt.Sprintf(format, v)
		}
	}
	said["Sprint"] = fmt.Sprint(v, v) + fmt.Sprintln(v)
	said["Errorf %w"] = fmt.Errorf("%w %v", io.EOF, v).Error()
	wrapped := fmt.Errorf("wrapped: %v", v)
	said["errors"] = fmt.Sprintf("%v %+v %#v", wrapped, errors.Join(wrapped, io.EOF), fmt.Errorf("%w", wrapped))

	sink := func(name string, write func(io.Writer) error) {
		var text bytes.Buffer
		err := write(&text)
		said[name] = fmt.Sprintf("%s %v %+v", text.String(), err, err)
	}
	sink("log", func(w io.Writer) error {
		l := log.New(w, "", log.LstdFlags)
		l.Print(v)
		l.Printf("%v %+v %#v %s", v, v, v, v)
		return nil
	})
	slogTo := func(h slog.Handler) error {
		l := slog.New(h).With("with", v).WithGroup("group")
		l.Info("message", "attribute", v, slog.Group("inner", "v", v), slog.Any("error", wrapped))
		return nil
	}
	sink("slog text", func(w io.Writer) error { return slogTo(slog.NewTextHandler(w, nil)) })
	sink("slog JSON", func(w io.Writer) error { return slogTo(slog.NewJSONHandler(w, nil)) })
	sink("json", func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
	sink("json indented", func(w io.Writer) error {
		text, err := json.MarshalIndent(map[string]any{"v": v}, "", "  ")
		return errors.Join(err, second(w.Write(text)))
	})
	sink("xml", func(w io.Writer) error { return xml.NewEncoder(w).Encode(v) })
	sink("gob", func(w io.Writer) error { return gob.NewEncoder(w).Encode(v) })
	sink("text/template", func(w io.Writer) error {
		return texttemplate.Must(texttemplate.New("").Parse(`{{.}} {{print .}} {{printf "%+v %#v %s %q" . . . .}} {{js .}} {{urlquery .}} {{html .}}`)).Execute(w, v)
	})
	for name, text := range map[string]string{
		"text":      `<p>{{.}}</p>`,
		"attribute": `<p title="{{.}}" data-x={{.}}></p>`,
		"script":    `<script>var x = {{.}}; var y = "{{.}}"</script>`,
		"style":     `<style>p { color: {{.}} }</style>`,
		"URL":       `<a href="/?q={{.}}">{{printf "%#v" .}}</a>`,
	} {
		sink("html/template "+name, func(w io.Writer) error {
			return htmltemplate.Must(htmltemplate.New("").Parse(text)).Execute(w, v)
		})
	}
	sink("expvar", func(w io.Writer) error {
		_, err := io.WriteString(w, expvar.Func(func() any { return v }).String())
		return err
	})
	sink("reflect", func(w io.Writer) error {
		walk(w, reflect.ValueOf(v), make(map[walked]bool))
		return nil
	})
	return said
}

func second[T any](_ T, err error) error { return err }

type walked struct {
	pointer uintptr
	kind    reflect.Type
}

// walk prints whatever reflection reaches from v, unexported fields included.
func walk(w io.Writer, v reflect.Value, seen map[walked]bool) {
	switch v.Kind() {
	case reflect.Invalid:
	case reflect.Pointer:
		key := walked{v.Pointer(), v.Type()}
		if !seen[key] {
			seen[key] = true
			walk(w, v.Elem(), seen)
		}
	case reflect.Interface:
		walk(w, v.Elem(), seen)
	case reflect.Struct:
		for i := range v.NumField() {
			fmt.Fprintf(w, "%s:", v.Type().Field(i).Name)
			walk(w, v.Field(i), seen)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			walk(w, key, seen)
			walk(w, v.MapIndex(key), seen)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			walk(w, v.Index(i), seen)
		}
	case reflect.String:
		fmt.Fprintf(w, "%s ", v.String())
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		fmt.Fprintf(w, "%#x ", v.Pointer())
	default:
		fmt.Fprintf(w, "%v ", v) // fmt looks into a reflect.Value
	}
}

// everythingSaid runs f's value through all sinks at all positions.
func everythingSaid[T any](v T) map[string]string {
	all := make(map[string]string)
	for position, holder := range positions(v) {
		for name, text := range sinks(holder) {
			all[name+" of "+position] = text
		}
	}
	return all
}

// canarySubjects is what must show no canary. Each function is run in a bubble,
// whose end says that nothing writes to what is printed any more.
var canarySubjects = map[string]func() (map[string]string, error){
	"Secret":      func() (map[string]string, error) { return everythingSaid(canaryCredentials().Password), nil },
	"Credentials": func() (map[string]string, error) { return everythingSaid(canaryCredentials()), nil },
	"Token":       func() (map[string]string, error) { return everythingSaid(canaryTokenValue()), nil },
	"Config":      func() (map[string]string, error) { return everythingSaid(canaryConfig()), nil },
	"Client": func() (map[string]string, error) {
		client, err := canaryClient()
		if err != nil {
			return nil, err
		}
		defer client.Close()
		synctest.Wait()
		return everythingSaid(client), nil
	},
	"TokenManager": func() (map[string]string, error) {
		client, err := canaryClient()
		if err != nil {
			return nil, err
		}
		defer client.Close()
		synctest.Wait()
		return everythingSaid(client.Tokens), nil
	},
	"current token": func() (map[string]string, error) {
		client, err := canaryClient()
		if err != nil {
			return nil, err
		}
		defer client.Close()
		token, err := client.Tokens.Token(context.Background())
		if err != nil {
			return nil, err
		}
		return everythingSaid(token), nil
	},
	"StaticTokenSource": func() (map[string]string, error) {
		return everythingSaid(ampauth.StaticTokenSource(canaryTokenValue().Value)), nil
	},
}

func TestNoSinkShowsASecret(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(canarySubjects)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all, err := canarySubjects[name]()
				if err != nil {
					t.Fatal(err)
				}
				for sink, text := range all {
					if found := leaks(text); found != nil {
						t.Errorf("%s shows %v", sink, found)
					}
				}
			})
		})
	}
}

// The sinks prove something only if they show what is there to be seen.
func TestSinksShowWhatIsNoSecret(t *testing.T) {
	type plain struct {
		Name, Word string
	}
	said := sinks(plain{"issuer", canaryToken})
	for name, text := range said {
		formatless := strings.HasPrefix(name, "%") && strings.ContainsAny(name[len(name)-1:], "Tp")
		hidden := name == "html/template style" // it filters what is no colour
		if leaks(text) == nil && !formatless && !hidden {
			t.Errorf("%s does not show a plain field", name)
		}
	}
	t.Run("at every position", func(t *testing.T) {
		for position, holder := range positions(plain{"issuer", canaryToken}) {
			if leaks(sinks(holder)["reflect"]) == nil {
				t.Errorf("the walk does not reach a plain field as %s", position)
			}
		}
	})
	t.Run("inside a client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, err := canaryClient()
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			synctest.Wait()
			if !strings.Contains(sinks(client)["reflect"], canaryUser) {
				t.Error("the walk does not reach the credentials of a client")
			}
		})
	})
}

func TestDiffReportsSecretsThatDifferAndShowsNeither(t *testing.T) {
	everything := cmp.Exporter(func(reflect.Type) bool { return true })
	first, other := ampauth.SecretFromString(canaryPassword), ampauth.SecretFromString(canaryToken)
	for _, test := range []struct {
		name string
		a, b any
	}{
		{"Secret", first, other},
		{"exported field", exportedHolder[ampauth.Secret]{first}, exportedHolder[ampauth.Secret]{other}},
		{"unexported field", unexportedHolder[ampauth.Secret]{"holder", first}, unexportedHolder[ampauth.Secret]{"holder", other}},
		{"pointer", &first, &other},
		{"slice", []ampauth.Secret{first}, []ampauth.Secret{other, first}},
		{"map", map[string]ampauth.Secret{"key": first}, map[string]ampauth.Secret{"key": other}},
		{"against nothing", first, ampauth.Secret{}},
		{"against another type", first, "text"},
		{"Credentials", ampauth.Credentials{Username: "issuer", Password: first}, ampauth.Credentials{Username: "issuer", Password: other}},
		{"Token", ampauth.Token{Value: first}, ampauth.Token{Value: other}},
		{"Config", ampauth.Config{Credentials: ampauth.Credentials{Password: first}}, ampauth.Config{Credentials: ampauth.Credentials{Password: other}}},
		{"StaticTokenSource", ampauth.StaticTokenSource(first), ampauth.StaticTokenSource(other)},
	} {
		t.Run(test.name, func(t *testing.T) {
			diff := cmp.Diff(test.a, test.b, everything)
			if diff == "" {
				t.Error("no difference is reported")
			}
			if found := leaks(diff); found != nil {
				t.Errorf("the diff shows %v", found)
			}
		})
	}
	t.Run("equal", func(t *testing.T) {
		if diff := cmp.Diff(first, ampauth.SecretFromString(canaryPassword)); diff != "" {
			t.Errorf("two Secrets of the same bytes differ: %s", diff)
		}
	})
}

// panicWith ends a child process by a panic with what name says.
func panicWith(name string) {
	client, err := canaryClient()
	if err != nil {
		os.Exit(3)
	}
	defer client.Close()
	switch name {
	case "plain text":
		panic(canaryToken)
	case "Secret":
		panic(canaryCredentials().Password)
	case "pointer to Secret":
		panic(new(canaryCredentials().Password))
	case "Credentials":
		panic(canaryCredentials())
	case "Token":
		panic(canaryTokenValue())
	case "Config":
		panic(canaryConfig())
	case "Client":
		panic(client)
	case "TokenManager":
		panic(client.Tokens)
	case "formatted Client":
		panic(fmt.Sprintf("%+v %#v", client, client.Tokens))
	case "error":
		panic(fmt.Errorf("wrapped: %v", canaryConfig()))
	case "inside Expose":
		_ = canaryCredentials().Password.Expose(func(b []byte) error { return []error{}[len(b)] })
	}
	os.Exit(4)
}

func TestPanicShowsNoSecret(t *testing.T) {
	for _, name := range []string{
		"Secret", "pointer to Secret", "Credentials", "Token", "Config", "Client", "TokenManager", "formatted Client", "error", "inside Expose",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, output := runChild(t, "panic "+name)
			if code != 2 || !strings.Contains(output, "panic: ") || !strings.Contains(output, "goroutine 1 ") {
				t.Fatalf("exit status %d, want the 2 of a panic, and its output", code)
			}
			if found := leaks(output); found != nil {
				t.Errorf("the output of a panic shows %v", found)
			}
		})
	}
	t.Run("plain text is seen", func(t *testing.T) {
		t.Parallel()
		if code, output := runChild(t, "panic plain text"); code != 2 || leaks(output) == nil {
			t.Errorf("exit status %d, and a panic's output is not searched", code)
		}
	})
}

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

func TestWhatTheCallerGetsShowsNoToken(t *testing.T) {
	stack := func(base http.RoundTripper, cfg ampauth.RetryConfig) *ampauth.RetryTransport {
		auth := &ampauth.AuthTransport{Base: base, Source: static(canaryToken), Origin: "https://amp.test"}
		return &ampauth.RetryTransport{Retry: cfg, Base: auth}
	}
	check := func(t *testing.T, v any) {
		t.Helper()
		synctest.Wait()
		for sink, text := range sinks(v) {
			if found := leaks(text); found != nil {
				t.Errorf("%s of a %T shows %v", sink, v, found)
			}
		}
	}
	for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.MutatingOperation} {
		t.Run("response of a "+op.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := roundTripFunc(func(*http.Request) (*http.Response, error) { return answer(200, "", "{}"), nil })
				resp, err := stack(base, ampauth.RetryConfig{}).RoundTrip(stubRequestTo(t.Context(), "https://amp.test/x", op, []byte("body")))
				if err != nil {
					t.Fatal(err)
				}
				check(t, resp)
				check(t, resp.Body)
				_ = resp.Body.Close()
				check(t, resp.Body)
			})
		})
	}
	t.Run("error of a caller who left after an attempt had timed out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			time.AfterFunc(time.Minute, cancel)
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				<-req.Context().Done()
				return nil, context.Cause(req.Context()) // as net/http does
			})
			cfg := ampauth.RetryConfig{MaxAttempts: 100, BaseDelay: 10 * time.Minute, MaxDelay: 20 * time.Minute, Timeout: 30 * time.Second}
			_, err := stack(base, cfg).RoundTrip(stubRequestTo(ctx, "https://amp.test/x", ampauth.SafeOperation, nil))
			if err == nil {
				t.Fatal("no error")
			}
			check(t, err)
		})
	})
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
