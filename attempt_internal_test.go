package ampauth

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// A clock that went on would keep the request and the response in memory.
func TestReleaseStopsTheClock(t *testing.T) {
	req := &http.Request{URL: new(url.URL), Header: http.Header{}}
	c := &call{t: new(RetryTransport), req: req, ctx: t.Context(), config: &RetryConfig{MutationTimeout: time.Hour}, operation: MutatingOperation}
	a := &c.newAttempt().attempt
	a.release()
	a.release()
	if a.timer.Stop() {
		t.Error("the clock of a released attempt was running")
	}
	if a.timedOut() || a.Err() == nil {
		t.Errorf("the attempt timed out: %v, its context says %v", a.timedOut(), a.Err())
	}
}
