package ampauth

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"github.com/ampauth/ampauth/internal/replay"
)

// keepAnswer readies what an attempt ended in for the time until the next one is
// admitted: if none is, it is what the caller gets. The answer's body is read ahead, so
// that its connection is free and the attempt over. One that is not read whole goes on
// to need both, but the attempt's clock stands still.
func (c *call) keepAnswer(r *result) {
	if r.kept {
		return
	}
	if r.resp == nil {
		r.attempt.release()
		return
	}
	r.kept = true
	r.attempt.stopClock()
	body := r.resp.Body
	if body != http.NoBody {
		r.resp.Body = http.NoBody // while it is read, which may panic
		if r.refusal != nil {     // the login must not wait for its connection
			r.resp.Body = r.attempt.giveUpRest(body)
			r.attempt.release()
			return
		}
		ahead := replay.ReadAhead(body, replay.MaxDrain, c.drainTime())
		content, whole := ahead.Whole()
		if !whole {
			r.ahead, r.resp.Body = ahead, ahead
			return
		}
		_ = ahead.Close()
		r.resp.Body = io.NopCloser(bytes.NewReader(content))
	}
	r.attempt.release()
}

// dropAnswer ends an attempt whose answer nobody wants, and closes that within d.
func (r *result) dropAnswer(d time.Duration) {
	r.kept = false
	defer r.attempt.release()
	if r.ahead == nil {
		_ = r.resp.Body.Close()
		return
	}
	r.attempt.discard(r.ahead, d)
	r.ahead = nil
}

// drainTime is how long to wait for the rest of a response that nobody wants: not
// for so long that there is no time left for another.
func (c *call) drainTime() time.Duration {
	if deadline, ok := c.ctx.Deadline(); ok {
		return min(replay.DrainTime, time.Until(deadline)/2)
	}
	return replay.DrainTime
}
