package hostile

import "fmt"

// A ConnAction is what the server does to a connection before any request.
type ConnAction int

// The actions "in the handshake" wait for the client's first bytes. That is the
// TLS ClientHello, or on an HTTP1 server the start of the first request.
const (
	Serve                ConnAction = iota
	ResetAtAccept                   // TCP reset as soon as it is there
	CloseAtAccept                   // closed as soon as it is there
	ResetInHandshake                // TCP reset after the ClientHello
	CloseInHandshake                // closed after the ClientHello
	GarbageInHandshake              // the ClientHello is answered with what is not TLS
	StallInHandshake                // the ClientHello is never answered
	UntrustedCertificate            // the certificate is one that TLSConfig does not trust; HTTP1 serves
)

// An Action is what the server does about a request: how it answers, or fails
// to. Those that send "half" of something send its first half, at least a byte.
type Action int

const (
	// Answer sends the step's answer.
	Answer Action = iota
	// AnswerThenClose sends the whole answer, which promises to keep the
	// connection, and closes it.
	AnswerThenClose
	// Reset resets the TCP connection before any byte of the answer.
	Reset
	// Close closes the connection before any byte of the answer.
	Close
	// CutHeaders sends half of the header and closes the connection. Over HTTP/2
	// that is a HEADERS frame without END_HEADERS.
	CutHeaders
	// CutBody sends the header and half of the body that it announces, and closes
	// the connection. If Code is not 0, it goes on as ResetStream does instead.
	CutBody
	// TruncatedChunk sends half of the body and the beginning of another chunk,
	// cut off in its size, and closes the connection. Over HTTP/2 that is a DATA
	// frame which ends before the length in its header.
	TruncatedChunk
	// StallHeaders sends nothing until the client leaves or the server closes.
	StallHeaders
	// StallBody sends the header and half of the body that it announces, then
	// nothing until the client leaves or the server closes.
	StallBody
	// EndlessBody sends the header and repeats the body until the client leaves
	// or the server closes. Server.Sent tells how much of it was taken.
	EndlessBody
	// GarbageStatus sends the step's Body, raw, in place of an answer, by default
	// a line that is not HTTP, and closes the connection. Over HTTP/2 it is a
	// :status that is no number, and the connection stays.
	GarbageStatus
	// SwitchProtocols sends a 101 and echoes what it receives from then on. HTTP/2
	// has no 101 (RFC 9113 8.6): the stream is reset with HTTP_1_1_REQUIRED.
	SwitchProtocols
	// ResetStream sends RST_STREAM with the step's Code before any byte of the
	// answer. Over HTTP/1 it is Reset.
	ResetStream
	// GoAway sends GOAWAY with the step's Code and Last. If that covers the
	// request, the answer follows; else there is none, and streams after the last
	// are ignored from then on (RFC 9113 6.8). Over HTTP/1 it is Close.
	GoAway
	// GoAwayThenClose sends GOAWAY with the step's Code and Last and closes the
	// connection without an answer. Over HTTP/1 it is Close.
	GoAwayThenClose
)

// String returns the name of the action.
func (a Action) String() string {
	names := [...]string{
		Answer: "Answer", AnswerThenClose: "AnswerThenClose",
		Reset: "Reset", Close: "Close",
		CutHeaders: "CutHeaders", CutBody: "CutBody", TruncatedChunk: "TruncatedChunk",
		StallHeaders: "StallHeaders", StallBody: "StallBody", EndlessBody: "EndlessBody",
		GarbageStatus: "GarbageStatus", SwitchProtocols: "SwitchProtocols",
		ResetStream: "ResetStream", GoAway: "GoAway", GoAwayThenClose: "GoAwayThenClose",
	}
	if a < 0 || int(a) >= len(names) {
		return fmt.Sprintf("Action(%d)", int(a))
	}
	return names[a]
}
