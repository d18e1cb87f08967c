package ampauth

import "fmt"

// An Outcome says how far an attempt got. Together with the [Operation] it
// decides whether a request may be sent again. That of a call is its last
// attempt's, unless an earlier one got further: it is Ambiguous when that may have
// been performed.
type Outcome int

const (
	// Ambiguous is the zero value: bytes may have left and no answer came.
	Ambiguous Outcome = iota
	// NotSent means that it is proved that the server did not get the request: no byte of
	// it was handed to a connection of a [ConnTransport]; or over somebody else's layers the
	// trace of net/http told of a connection to its host that failed, and the error is
	// that very failure; or no connection came about and nobody began to read the body
	// that it has. (Of a SafeOperation the type of the error says that its last try did
	// not get that far.)
	NotSent
	// Unprocessed means that the server said it did not process the request: status 421
	// (RFC 9110 15.5.20), 425 (RFC 8470 5.2), 417 to a request that expected
	// 100-continue (RFC 9110 10.1.1), HTTP/2 REFUSED_STREAM (RFC 9113 8.7). In an error of
	// [Once]: reading has shown that what was sent was not performed.
	Unprocessed
	// Rejected means that the server turned the request away before it looked at
	// it: status 429 (RFC 6585 4), or a refusal of the token.
	Rejected
	// Answered means that there is any other response.
	Answered
)

// String returns the name of the outcome.
func (o Outcome) String() string {
	switch o {
	case Ambiguous:
		return "Ambiguous"
	case NotSent:
		return "NotSent"
	case Unprocessed:
		return "Unprocessed"
	case Rejected:
		return "Rejected"
	case Answered:
		return "Answered"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}
