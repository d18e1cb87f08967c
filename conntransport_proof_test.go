package ampauth_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

// A layer between may make an answer of an error: it is not the answer to what was sent.
func TestAnswerThatALayerMadeOfAnErrorProvesNothing(t *testing.T) {
	for _, status := range []int{421, 425, 429} {
		s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true, Do: hostile.Close}))
		defer s.Close()
		conns := &ampauth.ConnTransport{Base: stubPooled(t)}
		layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if resp, err := conns.RoundTrip(req); err == nil {
				return resp, nil
			}
			return stubResponse(status, ""), nil
		})
		rt := &ampauth.RetryTransport{Base: layer, Retry: stubQuick}
		req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x"))
		req.Header.Set("X-Operation-Id", "m")
		if got := stubStatus(t, rt, req); got != status || s.Effects("m") != 1 {
			t.Errorf("%d: status %d after %d effects, want it returned after 1", status, got, s.Effects("m"))
		}
	}
}

// A layer may leave a try behind that begins when the call goes on without it.
func TestTryThatWasLeftBehindIsNotSent(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.Sequence(hostile.Step{Perform: true}))
	defer s.Close()
	s.RefuseDials(1)
	base := stubPooled(t)
	base.DialContext = s.DialContext
	conns := &ampauth.ConnTransport{Base: base}
	left := make(chan error, 1)
	first := true
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := conns.RoundTrip(req)
		if first {
			first = false
			late := req.Clone(context.WithoutCancel(req.Context()))
			late.Body = http.NoBody
			go func() {
				time.Sleep(50 * time.Millisecond)
				resp, err := conns.RoundTrip(late)
				if err == nil {
					_ = resp.Body.Close()
				}
				left <- err
			}()
		}
		return resp, err
	})
	rt := &ampauth.RetryTransport{Base: layer, Retry: stubQuick}
	req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x"))
	req.Header.Set("X-Operation-Id", "m")
	status := stubStatus(t, rt, req)
	if err := <-left; status != 200 || err == nil || s.Effects("m") != 1 {
		t.Errorf("status %d and %v of what was left behind, after %d effects; want 200, an error, 1", status, err, s.Effects("m"))
	}
}

// Of several tries over a ConnTransport each has to be proved.
func TestRepeatOfALayerOverAConnTransportIsCounted(t *testing.T) {
	s := hostile.New(hostile.HTTP1, hostile.ByID(map[string][]hostile.Step{"m": {{Perform: true, Do: hostile.Close}}}))
	defer s.Close()
	base := stubPooled(t)
	base.DialContext = s.DialContext
	conns := &ampauth.ConnTransport{Base: base}
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		again := req.Clone(req.Context())
		again.Body = http.NoBody
		_, _ = conns.RoundTrip(req) // performed, and cut
		s.RefuseDials(1)
		return conns.RoundTrip(again) // not sent
	})
	req := stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x"))
	req.Header.Set("X-Operation-Id", "m")
	_, err := (&ampauth.RetryTransport{Base: layer, Retry: stubQuick}).RoundTrip(req)
	if !errors.Is(err, ampauth.ErrAmbiguous) || s.Effects("m") != 1 {
		t.Errorf("got %v after %d effects, want ErrAmbiguous after 1", err, s.Effects("m"))
	}
}

func TestRepeatOfALayerThatMustGoAnotherWayIsNoProof(t *testing.T) {
	s := hostile.New(hostile.HTTP2, hostile.Sequence(hostile.Step{Perform: true}))
	defer s.Close()
	base := stubPooled(t)
	base.TLSClientConfig, base.ForceAttemptHTTP2 = s.TLSConfig(), true
	auth := &ampauth.AuthTransport{Base: base, Source: ampauth.StaticTokenSource(ampauth.SecretFromString("t")), Origin: s.URL()}
	calls := 0
	layer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		calls++
		stubConnect(req, true) // over its own connection, which broke
		return auth.RoundTrip(req)
	})
	_, err := (&ampauth.RetryTransport{Base: layer, Retry: stubQuick}).RoundTrip(stubRequestTo(t.Context(), s.URL(), ampauth.MutatingOperation, []byte("x")))
	if !errors.Is(err, ampauth.ErrAmbiguous) || calls != 1 || s.Requests() != 0 {
		t.Errorf("got %v after %d calls with %d requests, want it ambiguous after 1", err, calls, s.Requests())
	}
}
