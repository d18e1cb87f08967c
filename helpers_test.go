// A test stands in the file of its room: the prefix is that of the code that it is
// about, and what follows is the claim (retry_wait_limiter_test.go). What several
// files use stands in the helpers_ files:
//
//   - helpers_stub: the scripted base. For one transport, or two, over a network that
//     does what the test says: stubScript(stubAnswer(503), stubAnswer(200)) is the Base,
//     stubRequest makes the call, stubStatus and stubError read how it ended. Time is
//     that of synctest.Test. stubBubble has a server of net/http in place of the script.
//   - helpers_layers: what others bring along: layers, token sources, bodies, errors.
//   - helpers_amp: the bubble with the fake AMP. ampBubble runs a test on virtual time
//     over an in-memory network; w.manager and w.client log in there, w.Inject makes
//     the server fail, and w.requests is what arrived. startFake is the same server on
//     a loopback socket, for tests of a whole Client.
//   - helpers_store: stores in memory, faulty ones, and files with a canary for a token.
//   - helpers_server: servers of TLS, HTTP/2 and redirects, on real sockets.
//   - helpers_wire: the world over real wires, where any fault of helpers_faults may
//     meet any call, and the verdict on how a call ended by what the server performed.
//   - helpers_leaks: the canaries, the search for them in any form, and the walk through
//     what a value leads to. Whatever a test prints is searched as well (main_test.go).
//   - helpers_example: the t of examples, which take ampauthtest as a user's tests do.
//   - helpers_child: child processes, which are this test binary once more.
//
// A new test begins with the smallest of these worlds in which its claim can fail. It
// asserts exact times in a bubble, and leaves no goroutine behind, which TestMain
// checks. One that takes more than two seconds calls takesLong first.
package ampauth_test

import (
	"testing"

	"github.com/ampauth/ampauth"
)

// takesLong leaves a test of so many seconds out of a short run.
func takesLong(t *testing.T, seconds int) {
	t.Helper()
	if testing.Short() {
		t.Skipf("takes %d s; run without -short", seconds)
	}
}

// faults returns the errors that err joins.
func faults(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func validConfig() ampauth.Config {
	return ampauth.Config{
		BaseURL:     "https://amp.test/api",
		Credentials: ampauth.Credentials{Username: "issuer", Password: ampauth.SecretFromString("correct horse")},
	}
}
