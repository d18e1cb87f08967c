// Package ampauthtest is a fake AMP for tests of programs that use ampauth.
//
// [NewServer] starts one that ends with the test. It has one account, whose [Server.Client]
// is logged in on its first request, and no assets yet; what is issued is there to be read
// afterwards, in the lists too. A [Fault] is what goes wrong with the next request on a
// route; [Server.Revoke] and [Server.RefreshElsewhere] end the token. [Server.Effects] is
// what was performed, whether or not the client heard of it:
//
//	func TestIssueWhenTheAnswerIsLost(t *testing.T) {
//		amp := ampauthtest.NewServer(t, ampauthtest.Options{})
//		amp.Inject(ampauthtest.Fault{Route: "POST /assets/issue", AfterIt: true, Reset: true})
//		err := Issue(t.Context(), amp.Client(), amp.URL, "Bond")
//		if !errors.Is(err, ampauth.ErrAmbiguous) {
//			t.Errorf("%v, want one that Is ErrAmbiguous", err)
//		}
//		if n := len(amp.Effects()); n != 1 {
//			t.Errorf("issued %d times, want once", n)
//		}
//	}
//
// # What fails a test
//
// Two things that a client of AMP must not do, without a line of yours:
//
//   - To have a mutation performed twice: the same method, path and body performed again
//     after it was performed. Requests that carry an X-Operation-Id header field are told
//     apart by that, not by their body. Options.Repeat names the routes where the test
//     means it, Options.Tolerant means everything. docs/exactly-once.md in the repository
//     says how to find out whether something was performed, before it is sent again.
//   - To send what gives a credential away or confuses AMP: a login with an Authorization
//     or Cookie field; two Authorization fields; a password in any other body than that of
//     a login or a change of password; a token or password in a query; a body on a GET.
//
// So does a wrong use of this package, such as a Fault on a route that AMP does not have.
// Each is told by t.Errorf, with the route and never with a body or token, and the test
// goes on. A fault that no request met is noted in the log.
//
// # Time
//
// Inside a testing/synctest bubble the server is reached in memory, so that the clock of
// the bubble runs and waits cost nothing, Settle of [ampauth.Once] included: call NewServer
// there, with the t of the bubble. Outside, each of its waits is one.
//
// # Your own client
//
// [Server.Config] is what Client is made of: change it, say its Classify or Store, for
// [ampauth.NewClient], and close that client. Below layers of your own put
// [Server.Transport]. Who brings a listener takes the Server as its [http.Handler]. Nothing
// here reads the environment, AMP_TOKEN_DIR included, or shares anything with another
// Server: tests may run in parallel.
//
// # Routes
//
// A route is a method and a path below URL, as AMP's specification writes it:
// "POST /user/obtain_token" is the login, "GET /assets/{assetUuid}" one asset. A wrong one
// is told with the right one. Fields of a request are not checked, but that assignments are
// created by {"assignments": [{...}]}, which is answered with a list. An operation on an id
// that was never given out answers as if there were such a thing; to read an asset, a
// registered user, an assignment or a distribution that is not there is 404.
package ampauthtest
