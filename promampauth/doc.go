// Package promampauth tells Prometheus what ampauth does: metrics of logins, repeats and
// tokens, and a file of alerts over them, alerts.yml.
//
// A [Collector] is bound to a client in two places: its OnEvent is that of the Config, and
// Observe takes the client. It starts no goroutine; what a client did is read when
// Prometheus scrapes.
//
//	collector := new(promampauth.Collector)
//	cfg.OnEvent = collector.OnEvent
//	client, err := ampauth.NewClient(cfg)
//	if err != nil {
//		return err
//	}
//	collector.Observe(client)
//	prometheus.MustRegister(collector)
//
// Two clients in one registry are told apart as any two collectors are, by a label:
//
//	for name, collector := range collectors {
//		prometheus.WrapRegistererWith(prometheus.Labels{"client": name}, registry).MustRegister(collector)
//	}
//
// # Metrics
//
//	ampauth_logins_total                 counter    operation, result      logins and refreshes that ended
//	ampauth_login_duration_seconds       histogram  error_type, operation  their duration, with all their attempts and waits
//	ampauth_login_renewals_total         counter    -                      logins that were made because the API refused a token
//	ampauth_token_adoptions_total        counter    -                      tokens taken from the store
//	ampauth_token_remaining_seconds      gauge      -                      the token's remaining life, negative once it has ended
//	ampauth_call_retries_total           counter    reason                 requests sent again
//	ampauth_call_replays_total           counter    -                      requests sent again with a new token
//	ampauth_call_waits_total             counter    -                      waits for a backoff, a Retry-After or the limiter
//	ampauth_call_wait_time_seconds_total counter    -                      their sum
//	ampauth_call_ambiguous_total         counter    -                      calls whose outcome is in doubt: find out by reading
//	ampauth_call_exhausted_total         counter    -                      calls given up although they could have been sent, or sent again
//	ampauth_store_faults_total           counter    -                      calls of the token store that failed
//
// All but ampauth_login_duration_seconds are read from the Stats of the client, whether or
// not OnEvent is bound. The counters begin at 0. There is no ampauth_token_remaining_seconds
// while there is no token, or one without an end.
//
// # Labels
//
// Each has a small fixed set of values. None is a secret, a URL or the name of a user.
//
//	operation   obtain, refresh
//	result      ok, error
//	error_type  the word of Event.ErrorType, empty if it went well
//	reason      not_sent, unprocessed, rate_limited, server_error, timeout, broken_connection
//
// # Alerts
//
// alerts.yml in this directory is a rule file for Prometheus: calls whose outcome is in doubt
// or that are given up, credentials that are refused, no login for an hour though it was
// tried, a token that has ended, tokens that are refused again and again, and faults of the
// store. Each says what to do. Copy it, and change its severities to yours.
//
// # Until there is a tag
//
// This is a module of its own, so that users of ampauth do not inherit client_golang. Until
// both are tagged its go.mod requires ampauth v0.0.0 and replaces it by the directory above;
// who uses it before that needs the same replace, with a path to a checkout.
package promampauth
