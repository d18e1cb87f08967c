// Package hostile is a server that misbehaves to order. It speaks HTTP/1.1 by
// hand on its connections and HTTP/2 frame by frame, over real sockets on the
// loopback interface, so that a client meets real resets, refusals and stalls.
// Only tests use it.
//
// A [Script] says what becomes of each connection and each request. This one
// performs the operation and then resets the connection instead of answering;
// what comes next is performed and answered with 201:
//
//	s := hostile.New(hostile.HTTP1TLS, hostile.Sequence(
//		hostile.Step{Perform: true, Do: hostile.Reset},
//		hostile.Step{Perform: true, Status: 201, Body: `{"id": 7}`},
//	))
//	defer s.Close()
//	base := &http.Transport{TLSClientConfig: s.TLSConfig(), ForceAttemptHTTP2: true}
//	// ... send a request with "X-Operation-Id: pay-1" to s.URL() through base ...
//	if n := s.Effects("pay-1"); n != 1 {
//		t.Errorf("performed %d times\n%v", n, s.Log())
//	}
//
// # Effects
//
// The server keeps a log of the requests whose header arrived, with what was
// done about each. A client names an operation by the request header
// X-Operation-Id, the same on every attempt at it. A [Step] with Perform set
// performs the operation before it answers, stalls or breaks off, but never one
// whose body did not arrive whole, except where its Upload says that the body
// is not waited for.
//
// A script can make the server lie: perform an operation and then answer 429 or
// reset the stream with REFUSED_STREAM. An honest client sends that again.
//
// # Protocols
//
// Every [Action] means something over either protocol; where the two differ
// its comment says how. Over HTTP/2 the stalls concern one stream, and other
// streams go on; what resets or closes, resets or closes the connection, and
// with it all of its streams. [ResetStream] ends only the one.
package hostile
