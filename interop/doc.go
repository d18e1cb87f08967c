// Package interop holds tests of ampauth between other people's layers. It is a
// module of its own, so that users of ampauth inherit none of its dependencies.
package interop
