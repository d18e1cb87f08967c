package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// A theirTimeout is a timeout of net or net/http, which Is context.DeadlineExceeded.
type theirTimeout struct{}

func (theirTimeout) Error() string        { return "i/o timeout" }
func (theirTimeout) Timeout() bool        { return true }
func (theirTimeout) Temporary() bool      { return true }
func (theirTimeout) Is(target error) bool { return target == context.DeadlineExceeded }

func TestAdviceIsForTheCauseAtHand(t *testing.T) {
	dial := func(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }
	unknownHost := &net.DNSError{Err: "no such host", Name: "host.example", IsNotFound: true}
	const caller, listens, host, proxy = "the deadline of the caller's context", "nothing listens there", "check the host in", "the proxy is not reached"
	for name, test := range map[string]struct {
		err  error
		want string // of the four, or none
	}{
		"the caller's deadline":           {context.DeadlineExceeded, caller},
		"the caller's deadline, wrapped":  {fmt.Errorf("wait: %w", context.DeadlineExceeded), caller},
		"the caller's deadline, joined":   {errors.Join(errors.New("wait"), context.DeadlineExceeded), caller},
		"a timeout of the dialer":         {dial("dial", theirTimeout{}), ""},
		"a timeout of net/http":           {theirTimeout{}, ""},
		"a refused connection":            {errStubDial, listens},
		"an unknown host":                 {dial("dial", unknownHost), host},
		"a proxy that refuses":            {dial("proxyconnect", errStubDial), proxy},
		"a proxy whose host is not known": {dial("proxyconnect", dial("dial", unknownHost)), proxy},
		"a proxy that is silent":          {dial("proxyconnect", dial("dial", theirTimeout{})), proxy},
	} {
		for op, kind := range map[string]error{"request": ampauth.ErrRequestFailed, "obtain": ampauth.ErrObtainFailed} {
			text := (&ampauth.Error{Op: op, Kind: kind, Outcome: ampauth.NotSent, Attempts: 1, Err: test.err}).Error()
			for _, advice := range []string{caller, listens, host, proxy} {
				if got := strings.Contains(text, advice); got != (advice == test.want) {
					t.Errorf("%s, %s: %s", name, op, text)
				}
			}
		}
	}
}

func TestAdviceIsNotForWhatCameBefore(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		m := w.manager(w.over(func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "/refresh-token") {
				return nil, errStubDial
			}
			return base.RoundTrip(req)
		}))
		w.token(m)
		w.Inject(fakeamp.Fault{Route: ampObtain, Times: -1, Status: 503})
		_, err := m.Refresh(t.Context())
		text := fmt.Sprint(err)
		if !strings.Contains(text, "connection refused") || strings.Contains(text, "nothing listens") || !strings.HasSuffix(text, "later calls try again") {
			t.Errorf("got %s", text)
		}
	})
}

func TestTimeOfAStoreIsNotTheCallersDeadline(t *testing.T) {
	for name, load := range map[string]func(context.Context) error{
		"obeys its context": func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("engine: %w", ctx.Err())
		},
		"ignores it": func(context.Context) error {
			time.Sleep(time.Minute)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				var log eventLog
				w.token(w.manager(log.into, storedIn(&faultyStore{memoryStore: newMemoryStore(), load: load})))
				synctest.Wait()
				events := log.named(ampauth.EventStore)
				if len(events) == 0 || events[0].Err.Error() != "ampauth: token store: it did not answer within 1s" || !errors.Is(events[0].Err, context.DeadlineExceeded) {
					t.Errorf("told %v", events)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestConnectionThatWasClosedBeforeTheRequestHadNoAnswer(t *testing.T) {
	text := (&ampauth.Error{Op: "request", Kind: ampauth.ErrRequestFailed, Outcome: ampauth.NotSent, Attempts: 3, Err: io.EOF}).Error()
	if want := "ampauth: request failed after 3 attempts: the connection was closed (EOF); the request was not sent"; text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}
