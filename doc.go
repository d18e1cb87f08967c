// Package ampauth keeps an [http.Client] logged in to Blockstream AMP, the platform
// for issuing and managing assets on the Liquid Network, and makes its calls survive
// a bad network. A mutation never happens twice, a credential never leaks, and the
// caller never waits when it need not.
//
//	cfg, err := ampauth.ConfigFromEnv() // AMP_API_BASE_URL, AMP_USERNAME, AMP_PASSWORD
//	if err != nil {
//		return err // every fault at once
//	}
//	client, err := ampauth.NewClient(cfg)
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	resp, err := client.Get(cfg.URL("/assets"))
//
// A [Client] is an http.Client, and its Do is all that a generated API client needs.
// By hand, put an [AuthTransport] over your transport and a [RetryTransport] over
// that. Other people's layers may stand above, below and between; those below the
// AuthTransport see the token.
//
// # Authentication
//
// A [TokenManager] logs in at the first request, refreshes the token 5 minutes
// before its end while it is still served, and logs in again when AMP refuses it. All
// callers share one login, and each may leave it. The token goes to one scheme, host
// and port. With a [TokenStore], such as a [FileStore], tokens survive restarts and
// processes share one login.
//
// # Retries
//
// Whether a request is sent again depends on what it is ([Operation]) and on how far
// it got ([Outcome]). A mutation that may have been performed is not: its error Is
// [ErrAmbiguous]. Read before you send it again, or let [Once] do that. Mutations
// have connections of their own ([ConnTransport]), which prove when nothing has left.
//
// # Secrets
//
// A [Secret] shows its content through no formatter, logger or encoder, and no error
// of this package carries one. Not protected are the buffers of net/http, TLS and the
// kernel, strings that the caller made, the environment, swap and core dumps; what is
// sent is seen by layers below, an httptrace and GODEBUG=http2debug.
//
// # Testing
//
// Package ampauthtest is a fake AMP for tests of programs that use this one.
//
// # Compatibility
//
// Error texts, log records and jitter may change; kinds, fields and names do not. The
// two newest versions of Go are supported.
//
// Do not use it for tokens with scopes or for OAuth 2.0 flows: golang.org/x/oauth2
// knows those.
package ampauth
