package ampauth_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"golang.org/x/time/rate"
)

func TestRetryConfigDefault(t *testing.T) {
	got := ampauth.DefaultRetryConfig()
	if got.MaxAttempts != 3 || got.BaseDelay != time.Second || got.MaxDelay != 30*time.Second ||
		got.Timeout != 10*time.Second || got.MutationTimeout != 60*time.Second {
		t.Errorf("got %+v, want 3, 1 s, 30 s, 10 s, 60 s", got)
	}
}

func TestRetryConfigForTests(t *testing.T) {
	got := ampauth.RetryConfigForTests()
	if got.MaxAttempts != 2 || got.BaseDelay != 100*time.Millisecond || got.MaxDelay != time.Second ||
		got.Timeout != 5*time.Second || got.MutationTimeout != 5*time.Second {
		t.Errorf("got %+v, want 2, 100 ms, 1 s, 5 s, 5 s", got)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
}

func TestRetryConfigWithTimeout(t *testing.T) {
	before := ampauth.DefaultRetryConfig()
	after := before.WithTimeout(7 * time.Second)
	if after.Timeout != 7*time.Second || before.Timeout != 10*time.Second {
		t.Errorf("before %v, after %v", before.Timeout, after.Timeout)
	}
	after.Timeout = before.Timeout
	if after != before {
		t.Error("WithTimeout changed something else")
	}
}

func TestWithTimeoutLeavesMutationsNoLessTime(t *testing.T) {
	const more = 2 * time.Minute
	for name, test := range map[string]struct {
		config ampauth.RetryConfig
		d      time.Duration
		want   time.Duration // MutationTimeout
	}{
		"the default":            {ampauth.DefaultRetryConfig(), more, more},
		"the default, shortened": {ampauth.DefaultRetryConfig(), time.Second, time.Minute},
		"no timeout":             {ampauth.DefaultRetryConfig(), -1, time.Minute},
		"for tests":              {ampauth.RetryConfigForTests(), 7 * time.Second, 7 * time.Second},
		"longer already":         {ampauth.RetryConfig{MutationTimeout: time.Hour}, more, time.Hour},
		"left to the default":    {ampauth.RetryConfig{}, more, 0},
		"without a bound":        {ampauth.RetryConfig{MutationTimeout: -1}, more, -1},
	} {
		if got := test.config.WithTimeout(test.d); got.Timeout != test.d || got.MutationTimeout != test.want {
			t.Errorf("%s: %v, mutations %v; want %v, %v", name, got.Timeout, got.MutationTimeout, test.d, test.want)
		}
	}
}

func TestHugeNumbersDoNotOverflow(t *testing.T) {
	cfg := ampauth.RetryConfig{MaxAttempts: math.MaxInt, BaseDelay: math.MaxInt64, MaxDelay: math.MaxInt64, Budget: math.MaxInt, MaxRetryAfter: math.MaxInt64}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestFaultyConfigurationIsOneClearError(t *testing.T) {
	body := newStubBody("x")
	base := stubScript(stubAnswer(200))
	rt := &ampauth.RetryTransport{Base: base, Retry: ampauth.RetryConfig{MaxAttempts: -1, BaseDelay: -1}}
	_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.SafeOperation, body))
	if !errors.Is(err, ampauth.ErrConfig) || base.attempts() != 0 || body.closed.Load() != 1 {
		t.Errorf("got %v, %d attempts, body closed %d times; want ErrConfig, 0, once", err, base.attempts(), body.closed.Load())
	}
	for _, field := range []string{"MaxAttempts", "BaseDelay"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestLimiterWithoutABurstIsAConfigurationFault(t *testing.T) {
	body := newStubBody("x")
	base := stubScript(stubAnswer(200))
	rt := &ampauth.RetryTransport{Base: base, Limiter: rate.NewLimiter(1, 0)}
	_, err := rt.RoundTrip(stubRequest(t.Context(), ampauth.MutatingOperation, body))
	if !errors.Is(err, ampauth.ErrConfig) || !strings.Contains(err.Error(), "Limiter") || base.attempts() != 0 || body.closed.Load() != 1 {
		t.Errorf("got %v, %d attempts, body closed %d times; want ErrConfig that names the Limiter", err, base.attempts(), body.closed.Load())
	}
}
