package ampauthtest

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// A Fault is what goes wrong with the next requests on a route. It needs a Status, a
// Delay or a Reset; a Delay may stand beside one of the others. The zero Fault is none,
// for the rows of a table in which nothing goes wrong.
//
// An issuance that is performed while its client hears nothing of it is
//
//	Fault{Route: "POST /assets/issue", AfterIt: true, Reset: true}
type Fault struct {
	// Route is a method and a path below URL, with AMP's own names in braces for what
	// varies: "POST /assets/issue", "GET /assets/{assetUuid}". The path alone is for any
	// method. If empty, the fault is for any request, logins included.
	Route string

	// Times is how many requests meet it. If zero, one; -1: all.
	Times int

	// AfterIt has the request performed first: the fault hides that it was. Otherwise a
	// Status or Reset takes the place of the operation: nothing is performed, or Late.
	AfterIt bool

	// Status is answered in place of AMP's answer, with the body that AMP has for it,
	// from 200 to 299 and from 400 to 599. If zero, AMP answers by itself.
	Status int

	// RetryAfter is the header field that goes with Status: seconds, such as "2", or an
	// HTTP date. If empty, there is none.
	RetryAfter string

	// Delay is a wait before the answer; with AfterIt the operation is performed before
	// it, without, after it. If zero, there is none. A client that leaves ends it.
	Delay time.Duration

	// Reset breaks the connection (over HTTP/2 the stream) in place of an answer.
	Reset bool

	// Late has the operation performed so long after the Status or Reset, as by a server
	// that goes on with what its client or a gateway has given up: does your Settle
	// outlast that? Who asks is checked when the request arrives. What is still to come
	// when the test ends is performed then, so that a second time shows. If zero, there
	// is none; it does not go with AfterIt.
	Late time.Duration
}

// Inject adds faults. A request meets at most one: the first in the order of injection
// that is for its route and not used up. A fault that makes no sense fails the test and
// is left out. One that no request has met by the end is noted in the test's log.
func (s *Server) Inject(faults ...Fault) {
	s.t.Helper()
	if !s.mustLive("Inject") {
		return
	}
	for i, f := range faults {
		if f == (Fault{}) {
			continue
		}
		route, wrong := fakeamp.KnownRoute(f.Route)
		if wrong == "" {
			wrong = f.wrong()
		}
		if wrong != "" {
			s.refuse("Inject: Fault %d: %s", i+1, wrong)
			continue
		}
		f.Route = route
		s.mu.Lock()
		s.faults = append(s.faults, f.name())
		s.mu.Unlock()
		s.fake.Inject(f.engine())
	}
}

// wrong says what is wrong with f, but for its Route; "" is nothing.
func (f Fault) wrong() string {
	switch {
	case f.Times < -1:
		return fmt.Sprintf("Times is %d; it is a number of requests, or -1 for all", f.Times)
	case f.Delay < 0:
		return fmt.Sprintf("Delay is %v; it must not be negative", f.Delay)
	case f.Late < 0:
		return fmt.Sprintf("Late is %v; it must not be negative", f.Late)
	case f.Late > 0 && f.AfterIt:
		return "Late and AfterIt exclude each other: what is late is performed after the answer"
	case f.Late > 0 && f.Status == 0 && !f.Reset:
		return "Late needs a Status or Reset, after which the operation is performed"
	case f.Reset && f.Status != 0:
		return "Reset and Status exclude each other: a connection that breaks brings no answer"
	case f.Reset && f.RetryAfter != "":
		return "Reset and RetryAfter exclude each other: a connection that breaks brings no answer"
	case f.RetryAfter != "" && f.Status == 0:
		return "RetryAfter needs a Status, such as 429 or 503"
	case f.RetryAfter != "" && f.Status < 400:
		return fmt.Sprintf("RetryAfter has no meaning with Status %d; it goes with 429 or 503", f.Status)
	case f.RetryAfter != "" && !isRetryAfter(f.RetryAfter):
		return fmt.Sprintf("RetryAfter is %q; it is whole seconds, such as \"2\", or an HTTP date", f.RetryAfter)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Sprintf("Status is %d; it must be from 200 to 299 or from 400 to 599", f.Status)
	case f.Status/100 == 3:
		return fmt.Sprintf("Status is %d; a redirect needs a Location, and a Fault has none", f.Status)
	case f.Late > 0 && fakeamp.SaysNotPerformed(f.Status):
		return fmt.Sprintf("Late and Status %d exclude each other: that answer says that nothing was performed, and a client may send the request again", f.Status)
	case f.AfterIt && fakeamp.SaysNotPerformed(f.Status):
		return fmt.Sprintf("AfterIt and Status %d exclude each other: that answer says that nothing was performed, and a client may send the request again", f.Status)
	case f.Status == 0 && f.Delay == 0 && !f.Reset:
		return "it changes nothing: set a Status, a Delay or Reset"
	}
	return ""
}

func isRetryAfter(text string) bool {
	if _, err := strconv.ParseUint(text, 10, 31); err == nil {
		return true
	}
	_, err := http.ParseTime(text)
	return err == nil
}

// engine is f in the words of the engine.
func (f Fault) engine() fakeamp.Fault {
	g := fakeamp.Fault{Name: f.name(), Route: f.Route, Times: f.Times, Status: f.Status, Delay: f.Delay, Late: f.Late}
	if f.AfterIt || f.Late > 0 {
		g.When = fakeamp.After
	}
	if f.Reset {
		g.Do = fakeamp.Reset
	}
	if f.RetryAfter != "" {
		g.Header = http.Header{"Retry-After": {f.RetryAfter}}
	}
	return g
}

// name is f for a reader, such as "Reset after it".
func (f Fault) name() string {
	name := ""
	if f.Delay > 0 {
		name = "Delay " + f.Delay.String()
	}
	join := func(word string) {
		if name != "" {
			name += ", "
		}
		name += word
	}
	if f.Status != 0 {
		join("Status " + strconv.Itoa(f.Status))
	}
	if f.Reset {
		join("Reset")
	}
	if f.AfterIt {
		name += " after it"
	}
	if f.Late > 0 {
		join("Late " + f.Late.String())
	}
	if f.Route != "" {
		name += ", on " + f.Route
	}
	return name
}
