// Package otelampauth tells OpenTelemetry what ampauth does: metrics of logins, repeats and
// tokens, an event on the span of a call for each repeat, and http.request.resend_count on
// the spans of otelhttp.
//
// An [Observer] is bound to a client in two places: its OnEvent is that of the Config, and
// Observe takes the client. It starts no goroutine and sends nothing by itself. Requests
// that succeed at once cost nothing; http.client.request.duration is otelhttp's affair.
//
//	observer, err := otelampauth.New(nil) // the global MeterProvider
//	if err != nil {
//		return err
//	}
//	defer observer.Close()
//	cfg.OnEvent = observer.OnEvent
//	cfg.HTTPClient = &http.Client{Transport: otelhttp.NewTransport(
//		otelampauth.ResendCount{Base: &ampauth.ConnTransport{}})}
//	client, err := ampauth.NewClient(cfg)
//	if err != nil {
//		return err
//	}
//	observer.Observe(client)
//
// # Metrics
//
//	ampauth.login.duration   histogram  s           logins and refreshes, with all their attempts and waits
//	ampauth.login.renewals   counter    {login}     logins that were made because the API refused a token
//	ampauth.token.adoptions  counter    {token}     tokens taken from the store
//	ampauth.token.remaining  gauge      s           the token's remaining life, negative once it has ended
//	ampauth.call.retries     counter    {retry}     requests sent again
//	ampauth.call.replays     counter    {replay}    requests sent again with a new token
//	ampauth.call.waits       counter    {wait}      waits for a backoff, a Retry-After or the limiter
//	ampauth.call.wait.time   counter    s           their sum
//	ampauth.call.ambiguous   counter    {call}      calls whose outcome is in doubt: find out by reading
//	ampauth.call.exhausted   counter    {call}      calls given up although they could have been sent, or sent again
//	ampauth.store.faults     counter    {fault}     calls of the token store that failed
//
// Those of ampauth.token.remaining and of the waits are read from the client when metrics
// are collected, the others are told by its events as they happen, so that exemplars lead to
// their traces. The counters begin at 0. There is no ampauth.token.remaining while there is
// no token, or one without an end.
//
// # Attributes
//
// Each has a small fixed set of values, and "_OTHER" for what a later ampauth may add. None
// is a secret, a URL or the name of a user.
//
//	ampauth.login.operation   obtain, refresh; of ampauth.login.duration
//	error.type                the word of Event.ErrorType; of a login or refresh that failed
//	ampauth.retry.reason      not_sent, unprocessed, rate_limited, server_error, timeout, broken_connection
//	ampauth.exhausted.reason  attempts, budget, limiter, retry_after, deadline, body
//	ampauth.store.operation   load, save, delete, lock
//
// # Spans
//
// On the span that a call was made in, ampauth.retry and ampauth.replay are events just
// before a request is sent again, with http.request.resend_count and ampauth.wait, in
// seconds; ampauth.ambiguous and ampauth.exhausted are ends, with ampauth.attempts. A login
// is shared by its callers and belongs to none of them: it is in the metrics alone.
//
// # Until there is a tag
//
// This is a module of its own, so that users of ampauth do not inherit OpenTelemetry. Until
// both are tagged its go.mod requires ampauth v0.0.0 and replaces it by the directory above;
// who uses it before that needs the same replace, with a path to a checkout.
package otelampauth
