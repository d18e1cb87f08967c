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
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	texttemplate "text/template"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/google/go-cmp/cmp"
)

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
				base := roundTripFunc(func(*http.Request) (*http.Response, error) { return stubResponse(200, "{}"), nil })
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

func second[T any](_ T, err error) error { return err }
