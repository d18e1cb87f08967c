package hostile

import (
	"net/http"
	"time"
)

// A Script decides what becomes of connections and requests. Its zero value
// serves every connection and answers every request with an empty 200 that
// performs nothing. [Sequence] and [ByID] make the usual ones.
type Script struct {
	// Conn is asked about each connection, counted from 1. If nil, all are
	// served.
	Conn func(n int) ConnAction

	// Step is asked about each request as soon as its header is there. It may
	// block, which holds up that request, but not beyond [Server.Close]. If nil,
	// every request gets the zero Step.
	//
	// Both are called from many goroutines at once.
	Step func(Exchange) Step
}

// Sequence is a script that serves every connection and gives the nth request
// the nth step; those after the last step get the last.
func Sequence(steps ...Step) Script {
	return Script{Step: func(x Exchange) Step { return nth(steps, x.Request) }}
}

// ByID is a script that gives the nth attempt at an operation the nth of its
// steps; those after the last get the last. Operations that are not in steps
// get those of the id "", or the zero Step.
func ByID(steps map[string][]Step) Script {
	return Script{Step: func(x Exchange) Step {
		own, ok := steps[x.ID]
		if !ok {
			own = steps[""]
		}
		return nth(own, x.Attempt)
	}}
}

// OnConns returns the script with the nth action for the nth connection, and
// the last for those after it.
func (s Script) OnConns(actions ...ConnAction) Script {
	s.Conn = func(n int) ConnAction { return nth(actions, n) }
	return s
}

func nth[T any](list []T, n int) T {
	if len(list) == 0 {
		var zero T
		return zero
	}
	return list[min(n, len(list))-1]
}

// An Exchange is a request as the script and the log see it.
type Exchange struct {
	ID      string // value of X-Operation-Id, or ""
	Attempt int    // from 1: how often the ID was seen, this time included
	Request int    // from 1: over all connections of the server
	Conn    int    // number of the connection, from 1
	OnConn  int    // from 1: over the requests of this connection
	Proto   string // "HTTP/1.1" or "HTTP/2.0"
	Method  string
	Path    string // without the query
	Header  http.Header
	Time    time.Time // when the header had arrived
}

// FirstOnConn reports whether the connection carried no request before.
func (x Exchange) FirstOnConn() bool { return x.OnConn == 1 }

// A Step says what the server does about one request. Its zero value reads the
// request, performs nothing and answers with an empty 200.
type Step struct {
	Name    string // in the log; if empty, that of Do
	Perform bool   // perform the operation, then do the rest
	Do      Action
	Upload  Upload // when the request's body is read

	Delay         time.Duration // wait before Do, after the effect
	Informational []int         // statuses to send before Do, such as 103

	Status int         // if 0, 200
	Header http.Header // sent as it is; a Content-Length may lie
	Body   string      // actions that need one have a default
	// Chunked announces no length: chunks over HTTP/1, DATA frames over HTTP/2.
	Chunked bool
	// Pace makes the body leave in up to 16 pieces, this long apart.
	Pace time.Duration
	// Close says "Connection: close" and does it. HTTP/1 only.
	Close bool

	// Reset makes CutHeaders, CutBody, TruncatedChunk, AnswerThenClose and
	// GoAwayThenClose end with a TCP reset where they would close.
	Reset bool

	Code uint32     // HTTP/2: error code of ResetStream, the GoAways and CutBody
	Last LastStream // HTTP/2: what the GoAways say was the last stream
}

func (s Step) name() string {
	if s.Name != "" {
		return s.Name
	}
	return s.Do.String()
}

func (s Step) status() int {
	if s.Status == 0 {
		return http.StatusOK
	}
	return s.Status
}

// body is the step's Body or, for actions that need one, a default.
func (s Step) body() string {
	if s.Body == "" && s.Do != Answer && s.Do != AnswerThenClose {
		return `{"detail": "from a server that does not mean well"}`
	}
	return s.Body
}

// Upload is when the body of a request is read. A request that expects
// 100-continue is sent its 100 only by ReadBefore; the other modes answer
// instead, unless the step's Informational lists a 100.
type Upload int

const (
	// ReadBefore reads the whole body before anything is performed or sent.
	ReadBefore Upload = iota
	// ReadAfter waits for the first byte of the body, does the rest of the step
	// while the upload is in flight, and reads the body after that.
	ReadAfter
	// ReadSlowly is ReadAfter at 4 KiB every 10 ms.
	ReadSlowly
	// ReadNever is ReadAfter, but all but the first bytes is left unread. Over
	// HTTP/1 the connection stays open, unused, until the server closes,
	// and where the action closes it, the system makes a reset of that.
	ReadNever
)

// LastStream is the last stream id of a GOAWAY: one of the constants below, or
// a positive number to say just that.
type LastStream int64

// The constants never disown a stream whose operation was performed: if there
// is a later one, that is the last. A number may lie.
const (
	LastThis     LastStream = 0  // the stream of the request
	LastPrevious LastStream = -1 // the one before: this one was not processed
	LastNone     LastStream = -2 // 0: no stream was processed
)
