package ampauth

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ampauth/ampauth/internal/amproutes"
)

// An Operation says what a repeat of a request does.
type Operation int

const (
	// MutatingOperation is the zero value: a repeat may do the thing twice.
	MutatingOperation Operation = iota
	// IdempotentOperation changes something, and a repeat leaves the same state.
	IdempotentOperation
	// SafeOperation only reads.
	SafeOperation
)

// String returns the name of the operation.
func (o Operation) String() string {
	switch o {
	case MutatingOperation:
		return "MutatingOperation"
	case IdempotentOperation:
		return "IdempotentOperation"
	case SafeOperation:
		return "SafeOperation"
	}
	return fmt.Sprintf("Operation(%d)", int(o))
}

// ClassifyAMP knows the routes of AMP 0.1.12, under any base path, with or
// without a final slash. Sixteen of them are mutations, four of those by GET.
// Anything it does not know is a mutation, whatever its verb.
func ClassifyAMP(req *http.Request) Operation {
	switch amproutes.Classify(methodOf(req), req.URL) {
	case amproutes.Safe:
		return SafeOperation
	case amproutes.Idempotent:
		return IdempotentOperation
	default:
		return MutatingOperation
	}
}

// ClassifyHTTP goes by the method, as RFC 9110 9.2 defines it: GET, HEAD,
// OPTIONS and TRACE are safe, PUT and DELETE idempotent, the rest mutations. It
// is for other APIs; it is wrong for AMP.
func ClassifyHTTP(req *http.Request) Operation {
	switch methodOf(req) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return SafeOperation
	case http.MethodPut, http.MethodDelete:
		return IdempotentOperation
	}
	return MutatingOperation
}

type (
	operationKey struct{}
	noRetryKey   struct{}
)

// WithOperation returns a context whose requests are of kind op, whatever the
// classification says: the caller knows better.
func WithOperation(ctx context.Context, op Operation) context.Context {
	return context.WithValue(ctx, operationKey{}, op)
}

// operationOf says what req is: its context does, or else classify (if that is nil,
// ClassifyAMP). What the context says is of the first request of an http.Client's, and
// not of one that a redirect led to.
func operationOf(classify func(*http.Request) Operation, req *http.Request) Operation {
	op, ok := req.Context().Value(operationKey{}).(Operation)
	switch {
	case ok && req.Response == nil:
	case classify != nil:
		op = classify(req)
	default:
		op = ClassifyAMP(req)
	}
	if op != SafeOperation && op != IdempotentOperation {
		return MutatingOperation
	}
	return op
}

// WithoutRetry returns a context whose requests are attempted once. It is for
// clients that retry by themselves. These must not repeat an error that Is [ErrAmbiguous],
// nor an answer for which [ResponseError] makes one: that would perform a mutation twice.
// The replay after a refused token stays.
func WithoutRetry(ctx context.Context) context.Context {
	return context.WithValue(ctx, noRetryKey{}, true)
}

func methodOf(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}
	return req.Method
}
