package ampauth_test

import (
	"net/http"
	"slices"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

// A wireFault is one thing that goes wrong, with a connection or with a request.
type wireFault struct {
	hostile.Step // its Name is the fault's

	conn        hostile.ConnAction
	refused     bool // the dial
	http2       bool // there is no such thing over HTTP/1.1
	unprocessed bool // the client learns that nothing was done, and may send a mutation again
}

func (f *wireFault) ofConnection() bool { return f.conn != hostile.Serve || f.refused }

// times are those that an attempt gets, one after the other until it ends as it
// must. A fault that only a clock ends needs a short one. If that was too short for
// what else there is to do, on a busy machine, the next will not be.
func (f *wireFault) times() []time.Duration {
	switch {
	case f.conn == hostile.StallInHandshake, f.Do == hostile.StallHeaders, f.Do == hostile.StallBody, f.Delay > 0:
		return []time.Duration{300 * time.Millisecond, 3 * time.Second, 30 * time.Second}
	case f.Status == http.StatusForbidden: // whose text has a quarter of a second to come
		return []time.Duration{time.Minute, time.Minute, time.Minute}
	}
	return []time.Duration{time.Minute}
}

// want is the table of outcome and operation, told by faults.
func (f *wireFault) want(call *wireCall, http2 bool) wireWant {
	mutates := call.mutates
	success := wireWant{status: wireGood.Status, requests: 1, effects: 1}
	again := wireWant{status: wireGood.Status, requests: 2, effects: 1}
	performed := 0
	if f.Perform {
		performed = 1
	}
	answered := wireWant{status: statusOf(f.Step), requests: 1, effects: performed}
	unknown := wireWant{outcome: ampauth.Ambiguous, requests: 1, effects: performed}
	if !mutates {
		unknown = again // what is not known does not matter
	}
	switch {
	case f.conn == hostile.UntrustedCertificate:
		return wireWant{outcome: ampauth.NotSent}
	case f.ofConnection():
		return success
	case f.unprocessed && f.http2:
		// net/http does not say that it was not processed once the body cannot be made anew.
		return unknown
	case f.unprocessed:
		return again
	case !mutates && (f.Status == 307 || f.Status == 303 && call.method == "GET"):
		return success // it is followed
	}
	switch f.Do {
	case hostile.CutBody, hostile.TruncatedChunk, hostile.StallBody:
		answered.broken = true
		fallthrough
	case hostile.Answer, hostile.AnswerThenClose, hostile.GoAway, hostile.EndlessBody:
		transient := slices.Contains([]int{408, 500, 502, 503, 504}, f.Status)
		if f.Delay > 0 || transient && !mutates {
			return unknown
		}
		return answered
	case hostile.SwitchProtocols:
		if !http2 {
			return answered
		}
	}
	return unknown
}

// A wireWant is how a call with a single fault must end.
type wireWant struct {
	status  int             // 0: in an error with
	outcome ampauth.Outcome // for a mutation that is Ambiguous, it also Is ErrAmbiguous
	broken  bool            // the response's body ends in an error

	requests int // that arrive, if it is a mutation
	effects  int
}

// Error codes of HTTP/2 (RFC 9113 7).
const (
	protocolError = 0x1
	internalError = 0x2
	refusedStream = 0x7
	cancelStream  = 0x8
)

var wireFaults = func() []wireFault {
	drf := http.Header{"Content-Type": {"application/json"}}
	all := []wireFault{
		{Step: hostile.Step{Name: "dial refused"}, refused: true},
		{Step: hostile.Step{Name: "reset at accept"}, conn: hostile.ResetAtAccept},
		{Step: hostile.Step{Name: "close at accept"}, conn: hostile.CloseAtAccept},
		{Step: hostile.Step{Name: "reset in the handshake"}, conn: hostile.ResetInHandshake},
		{Step: hostile.Step{Name: "close in the handshake"}, conn: hostile.CloseInHandshake},
		{Step: hostile.Step{Name: "garbage in the handshake"}, conn: hostile.GarbageInHandshake},
		{Step: hostile.Step{Name: "stall in the handshake"}, conn: hostile.StallInHandshake},
		{Step: hostile.Step{Name: "untrusted certificate"}, conn: hostile.UntrustedCertificate},

		{Step: hostile.Step{Name: "429", Status: 429}, unprocessed: true},
		{Step: hostile.Step{Name: "429 with Retry-After 0", Status: 429, Header: http.Header{"Retry-After": {"0"}}}, unprocessed: true},
		{Step: hostile.Step{Name: "401", Status: 401, Header: http.Header{"Www-Authenticate": {"Token"}}}, unprocessed: true},
		{Step: hostile.Step{Name: "403 for the token", Status: 403, Header: drf, Body: `{"detail":"Invalid token."}`}, unprocessed: true},
		{Step: hostile.Step{Name: "421", Status: 421}, unprocessed: true},
		{Step: hostile.Step{Name: "425", Status: 425}, unprocessed: true},
		{Step: hostile.Step{Name: "400", Status: 400, Body: "no"}},
		{Step: hostile.Step{Name: "503 while the upload is read", Status: 503, Upload: hostile.ReadAfter}},
		{Step: hostile.Step{Name: "503 while the upload is read slowly", Status: 503, Upload: hostile.ReadSlowly}},
		{Step: hostile.Step{Name: "503 while the upload is not read", Status: 503, Upload: hostile.ReadNever, Close: true}},

		{Step: hostile.Step{Name: "307 to itself", Status: 307, Header: http.Header{"Location": {"?again"}}}},
		{Step: hostile.Step{Name: "307 to itself, performed", Status: 307, Header: http.Header{"Location": {"?again"}}, Perform: true}},
		{Step: hostile.Step{Name: "303 to itself, performed", Status: 303, Header: http.Header{"Location": {"?again"}}, Perform: true}},
		{Step: hostile.Step{Name: "302 to a mutation", Status: 302, Header: http.Header{"Location": {"/api/assets/6f0e%2Fregister"}}}},
		{Step: hostile.Step{Name: "103 before the answer", Informational: []int{103}, Perform: true, Status: 201}},
		{Step: hostile.Step{Name: "101", Do: hostile.SwitchProtocols}},
		{Step: hostile.Step{Name: "close behind the answer", Do: hostile.AnswerThenClose, Perform: true, Body: "done"}},
		{Step: hostile.Step{Name: "reset in the body", Do: hostile.CutBody, Perform: true, Reset: true}},
		{Step: hostile.Step{Name: "close in the body", Do: hostile.CutBody, Perform: true}},
		{Step: hostile.Step{Name: "chunk cut", Do: hostile.TruncatedChunk, Perform: true}},
		{Step: hostile.Step{Name: "body stalls", Do: hostile.StallBody, Perform: true}},
		{Step: hostile.Step{Name: "503 whose body stalls", Do: hostile.StallBody, Status: 503}},
		{Step: hostile.Step{Name: "body without an end", Do: hostile.EndlessBody, Perform: true, Pace: time.Millisecond}},

		{Step: hostile.Step{Name: "REFUSED_STREAM", Do: hostile.ResetStream, Code: refusedStream}, http2: true, unprocessed: true},
		// A later stream that was performed keeps it from disowning this one: then the 503 follows.
		{Step: hostile.Step{Name: "GOAWAY that disowns it", Do: hostile.GoAway, Last: hostile.LastPrevious, Status: 503}, http2: true, unprocessed: true},
		{Step: hostile.Step{Name: "GOAWAY that disowns it, and close", Do: hostile.GoAwayThenClose, Last: hostile.LastPrevious}, http2: true, unprocessed: true},
		{Step: hostile.Step{Name: "GOAWAY that covers it", Do: hostile.GoAway, Perform: true, Status: 201}, http2: true},
		{Step: hostile.Step{Name: "stream reset in the body", Do: hostile.CutBody, Perform: true, Code: internalError}, http2: true},
	}
	// These come before the operation is performed, and after.
	for _, fault := range []wireFault{
		{Step: hostile.Step{Name: "reset", Do: hostile.Reset}},
		{Step: hostile.Step{Name: "close", Do: hostile.Close}},
		{Step: hostile.Step{Name: "header cut", Do: hostile.CutHeaders}},
		{Step: hostile.Step{Name: "header stalls", Do: hostile.StallHeaders}},
		{Step: hostile.Step{Name: "garbage for a status", Do: hostile.GarbageStatus}},
		{Step: hostile.Step{Name: "answer too late", Delay: time.Hour}},
		{Step: hostile.Step{Name: "408", Status: 408}},
		{Step: hostile.Step{Name: "500", Status: 500, Body: "sorry"}},
		{Step: hostile.Step{Name: "502", Status: 502, Body: "<html>"}},
		{Step: hostile.Step{Name: "503 with Retry-After 0", Status: 503, Header: http.Header{"Retry-After": {"0"}}}},
		{Step: hostile.Step{Name: "504", Status: 504}},
		{Step: hostile.Step{Name: "PROTOCOL_ERROR", Do: hostile.ResetStream, Code: protocolError}, http2: true},
		{Step: hostile.Step{Name: "INTERNAL_ERROR", Do: hostile.ResetStream, Code: internalError}, http2: true},
		{Step: hostile.Step{Name: "CANCEL", Do: hostile.ResetStream, Code: cancelStream}, http2: true},
		{Step: hostile.Step{Name: "GOAWAY that covers it, and close", Do: hostile.GoAwayThenClose}, http2: true},
	} {
		before, after := fault, fault
		before.Name += ", not performed"
		after.Name += ", performed"
		after.Perform = true
		all = append(all, before, after)
	}
	return all
}()

// faultNamed returns the fault of that name, or nil.
func faultNamed(name string) *wireFault {
	for i := range wireFaults {
		if wireFaults[i].Name == name {
			return &wireFaults[i]
		}
	}
	return nil
}
