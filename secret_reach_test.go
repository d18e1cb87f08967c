package ampauth_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
)

type reachKey struct {
	pointer uintptr
	kind    reflect.Type
}

// A reacher follows what a value leads to, as the deepest of printers do: unexported
// fields, pointers, interfaces, maps and their keys, slices up to their capacity.
type reacher struct {
	secrets [][]byte
	seen    map[reachKey]bool
	found   []string
}

func (r *reacher) look(path string, b []byte) {
	for _, secret := range r.secrets {
		if bytes.Contains(b, secret) {
			r.found = append(r.found, path)
		}
	}
}

func (r *reacher) walk(path string, v reflect.Value) {
	if !v.IsValid() || len(r.found) > 3 || len(path) > 4000 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		if v.IsNil() {
			return
		}
		key := reachKey{v.Pointer(), v.Type()}
		if r.seen[key] {
			return
		}
		r.seen[key] = true
	}
	switch v.Kind() {
	case reflect.String:
		r.look(path, []byte(v.String()))
	case reflect.Pointer:
		r.walk(path, v.Elem())
	case reflect.Interface:
		r.walk(path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			r.walk(path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			r.walk(path+"[key]", key)
			r.walk(path+"[]", v.MapIndex(key))
		}
	case reflect.Slice:
		all := v.Slice3(0, v.Cap(), v.Cap())
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, all.Len())
			for i := range b {
				b[i] = byte(all.Index(i).Uint())
			}
			r.look(path, b)
			return
		}
		for i := range all.Len() {
			r.walk(path+"[i]", all.Index(i))
		}
	case reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			for i := range b {
				b[i] = byte(v.Index(i).Uint())
			}
			r.look(path, b)
			return
		}
		for i := range v.Len() {
			r.walk(path+"[i]", v.Index(i))
		}
	}
}

// reach returns the paths on which a secret is found.
func reach(name string, v any, secrets ...string) []string {
	r := &reacher{seen: make(map[reachKey]bool)}
	for _, s := range secrets {
		r.secrets = append(r.secrets, []byte(s))
	}
	r.walk(name, reflect.ValueOf(v))
	return r.found
}

// The walk is no good if it does not find what plain net/http leads to.
func TestReachFindsWhatNetHTTPLeadsTo(t *testing.T) {
	if raceEnabled {
		t.Skip("a printer takes no locks")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	defer server.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
	req.Header.Set("Authorization", "token "+canaryToken)
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	resp.Request = nil
	if reach("resp", resp, canaryToken) == nil {
		t.Error("the token in the buffers of net/http is not found")
	}
}

func reachWorld(t *testing.T, overHTTP2 bool, op ampauth.Operation, status int) {
	middle, goOn := make(chan struct{}), make(chan struct{})
	logins := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/obtain_token") {
			logins++
			fmt.Fprintf(w, `{"token":"%s%d"}`, canaryToken, logins)
			return
		}
		if middle != nil {
			close(middle)
			middle = nil
			<-goOn
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"detail":"Invalid token.","more":"`+strings.Repeat("x", 600)+`"}`)
		_ = http.NewResponseController(w).Flush()
		if status == 200 {
			<-r.Context().Done() // the body goes on
		}
	}))
	server.EnableHTTP2, server.Config.ErrorLog = overHTTP2, stubQuiet()
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport)
	cfg := ampauth.Config{
		BaseURL:     server.URL + "/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString(canaryPassword)},
		HTTPClient:  &http.Client{Transport: base},
		Retry:       stubQuick,
	}
	client, err := ampauth.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ampauth.WithOperation(context.Background(), op))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/api/assets/issue", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, things map[string]any) {
		t.Helper()
		for name, v := range things {
			for _, path := range reach(name, v, canaryToken, canaryPassword) {
				t.Errorf("%s: %s", when, path)
			}
		}
	}
	type end struct {
		resp *http.Response
		err  error
	}
	ended := make(chan end)
	inTheMiddle := middle
	go func() {
		resp, err := client.Do(req)
		ended <- end{resp, err}
	}()
	<-inTheMiddle
	check("in the middle", map[string]any{"client": client, "context": ctx, "request": req})
	close(goOn)
	e := <-ended
	if e.err != nil {
		t.Fatal(e.err)
	}
	check("with the answer", map[string]any{"client": client, "context": ctx, "request": req, "response": e.resp})
	_, _ = e.resp.Body.Read(make([]byte, 10))
	check("with a part of the answer", map[string]any{"context": ctx, "response": e.resp})
	cancel()
	_, err = io.ReadAll(e.resp.Body)
	check("with an error of the body", map[string]any{"error": err, "response": e.resp})
	_ = e.resp.Body.Close()
	check("afterwards", map[string]any{"client": client, "context": ctx, "request": req, "response": e.resp, "manager": client.Tokens})
}

// What the caller holds, in the middle of a call and after it, leads to neither the
// token nor the password, through whatever is unexported.
func TestNothingThatTheCallerHoldsLeadsToASecret(t *testing.T) {
	if raceEnabled {
		t.Skip("a printer takes no locks")
	}
	for _, http2 := range []bool{false, true} {
		for _, op := range []ampauth.Operation{ampauth.SafeOperation, ampauth.IdempotentOperation, ampauth.MutatingOperation} {
			for _, status := range []int{200, 401, 403, 500} {
				t.Run(fmt.Sprintf("HTTP/2 %t, %v, %d", http2, op, status), func(t *testing.T) {
					reachWorld(t, http2, op, status)
				})
			}
		}
	}
}

// An AuthTransport alone, as in a stack by hand.
func TestResponseOfAnAuthTransportAloneLeadsToNoToken(t *testing.T) {
	if raceEnabled {
		t.Skip("a printer takes no locks")
	}
	for _, overHTTP2 := range []bool{false, true} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/refused" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(403)
			}
			_, _ = io.WriteString(w, "{}")
		}))
		server.EnableHTTP2 = overHTTP2
		server.StartTLS()
		rt := &ampauth.AuthTransport{Base: server.Client().Transport, Source: static(canaryToken), Origin: server.URL}
		for _, path := range []string{"/", "/refused"} {
			ctx, cancel := context.WithCancel(context.Background())
			req, _ := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range append(reach("response", resp, canaryToken), reach("context", ctx, canaryToken)...) {
				t.Error(path)
			}
			if text, err := io.ReadAll(resp.Body); string(text) != "{}" || err != nil {
				t.Errorf("the body reads %q, %v", text, err)
			}
			_ = resp.Body.Close()
			cancel()
		}
		server.Close()
	}
}
