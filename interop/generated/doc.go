// Package generated holds clients of AMP as three generators make them, for the tests
// of this module. Each is made anew by go generate, from the descriptions in testdata.
package generated

//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -generate types,client -package oapicodegen -o oapicodegen/client.gen.go testdata/amp-openapi3.yaml
//go:generate go run github.com/ogen-go/ogen/cmd/ogen@v1.25.0 -clean -package ogen -config testdata/ogen.yml -target ogen testdata/amp-openapi3.yaml
//go:generate go run github.com/go-swagger/go-swagger/cmd/swagger@v0.36.7 generate client -q -f testdata/amp-swagger2.yaml -A amp -t goswagger
