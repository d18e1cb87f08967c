// Package ampauth keeps an [http.Client] authenticated against the Blockstream
// AMP API and makes its calls survive a bad network, without performing a
// mutation twice and without showing a credential.
//
//	cfg, err := ampauth.ConfigFromEnv()
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
// A [Client] is an http.Client, and its Do is all that a generated API client
// needs. To stack the layers by hand, put an [AuthTransport] over your transport
// and a [RetryTransport] over that; other people's layers may stand above, below
// and between. Layers below the AuthTransport see the token, and each attempt.
//
// # Authentication
//
// A [TokenManager] logs in when the first request needs it, refreshes 5 minutes
// before the end of a token while that is still served, and logs in again when
// the API refuses it. Any number of callers share one login, and each leaves it
// when its own context ends. The token goes to one scheme, host and port; a login
// follows no redirect. With a [TokenStore], such as a [FileStore], tokens survive
// restarts and processes share one login.
//
// # Retries
//
// Whether a request is sent again depends on what it is ([Operation]) and on how
// far it got ([Outcome]); [RetryTransport] has the rules. A mutation that may have
// been performed is never repeated: its error Is [ErrAmbiguous]. [Once] finds out by
// reading, and makes exactly once of at most once. Mutations have
// connections of their own, which prove when nothing has left; [ConnTransport] says what
// it assumes of them, and which stay idle when a call is over.
//
// # Secrets
//
// A [Secret] shows its content through no formatter, logger or encoder, and no
// error of this package carries one. Buffers of this package are wiped after use.
// What it cannot protect: the buffers of net/http, TLS and the kernel, strings that
// the caller made, the environment, swap and core dumps; layers below, an httptrace
// of the caller's and GODEBUG=http2debug see what is sent.
//
// # Testing
//
// Package ampauthtest is a fake AMP for tests of programs that use this one.
//
// # Compatibility
//
// Error texts, log records and jitter may change; kinds, fields and names do not.
//
// Do not use it for tokens with scopes or for OAuth 2.0 flows: golang.org/x/oauth2
// knows those.
package ampauth
