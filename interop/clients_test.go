package interop

import (
	"context"
	"errors"
	"net/url"
	"testing"

	"github.com/ampauth/ampauth"
	goswagger "github.com/ampauth/ampauth/interop/generated/goswagger/client"
	"github.com/ampauth/ampauth/interop/generated/goswagger/client/operations"
	"github.com/ampauth/ampauth/interop/generated/goswagger/models"
	"github.com/ampauth/ampauth/interop/generated/oapicodegen"
	"github.com/ampauth/ampauth/interop/generated/ogen"
	httptransport "github.com/go-openapi/runtime/client"
)

// Generated clients of AMP over an ampauth.Client. What stands between "begin" and "end"
// is in the document.

// begin docs/clients.md

func newOAPICodegen(client *ampauth.Client, base string) (*oapicodegen.ClientWithResponses, error) {
	return oapicodegen.NewClientWithResponses(base, oapicodegen.WithHTTPClient(client))
}

// end docs/clients.md

// begin docs/clients.md

func newOgen(client *ampauth.Client, base string) (*ogen.Client, error) {
	return ogen.NewClient(base, noToken{}, ogen.WithClient(client))
}

// noToken leaves Authorization empty, for AuthTransport to fill.
type noToken struct{}

func (noToken) Token(context.Context, ogen.OperationName) (ogen.Token, error) {
	return ogen.Token{}, nil
}

// end docs/clients.md

// begin docs/clients.md

func newGoSwagger(client *ampauth.Client, base *url.URL) *goswagger.Amp {
	schemes := []string{base.Scheme}
	return goswagger.New(httptransport.NewWithClient(base.Host, base.Path, schemes, client.Client), nil)
}

// end docs/clients.md

// An api is what the tests ask of a generated client.
type api struct {
	list  func(context.Context) (names []string, err error)
	issue func(ctx context.Context, name string) (uuid string, err error)
}

// generators make an api of each generator's client.
var generators = map[string]func(t *testing.T, client *ampauth.Client, base string) api{
	"oapi-codegen": overOAPICodegen,
	"ogen":         overOgen,
	"go-swagger":   overGoSwagger,
}

func overOAPICodegen(t *testing.T, client *ampauth.Client, base string) api {
	c, err := newOAPICodegen(client, base)
	if err != nil {
		t.Fatal(err)
	}
	return api{
		list: func(ctx context.Context) (names []string, err error) {
			answer, err := c.ListAssetsWithResponse(ctx)
			if err != nil {
				return nil, err
			}
			if answer.JSON200 == nil {
				return nil, ampauth.ResponseError(answer.HTTPResponse)
			}
			for _, a := range *answer.JSON200 {
				names = append(names, a.Name)
			}
			return names, nil
		},
		issue: func(ctx context.Context, name string) (string, error) {
			// begin docs/clients.md

			answer, err := c.IssueAssetWithResponse(ctx, oapicodegen.Issuance{Name: name, Amount: 1})
			if err != nil {
				return "", err
			}
			if answer.JSON201 == nil {
				return "", ampauth.ResponseError(answer.HTTPResponse)
			}

			// end docs/clients.md
			return answer.JSON201.AssetUuid, nil
		},
	}
}

func overOgen(t *testing.T, client *ampauth.Client, base string) api {
	c, err := newOgen(client, base)
	if err != nil {
		t.Fatal(err)
	}
	return api{
		list: func(ctx context.Context) (names []string, err error) {
			assets, err := c.ListAssets(ctx)
			for _, a := range assets {
				names = append(names, a.Name)
			}
			return names, err
		},
		issue: func(ctx context.Context, name string) (string, error) {
			asset, err := c.IssueAsset(ctx, &ogen.Issuance{Name: name, Amount: 1})
			if err != nil {
				return "", err
			}
			return asset.AssetUUID, nil
		},
	}
}

func overGoSwagger(t *testing.T, client *ampauth.Client, base string) api {
	c := newGoSwagger(client, parsed(t, base))
	return api{
		list: func(ctx context.Context) (names []string, err error) {
			answer, err := c.Operations.ListAssetsContext(ctx, nil, nil)
			if err != nil {
				return nil, err
			}
			for _, a := range answer.Payload {
				names = append(names, *a.Name)
			}
			return names, nil
		},
		issue: func(ctx context.Context, name string) (string, error) {
			amount, none := int64(1), ""
			body := &models.Issuance{Name: &name, Amount: &amount, DestinationAddress: &none, Domain: &none, Pubkey: &none, Ticker: &none}
			// begin docs/clients.md

			// The second argument is for a credential: nil leaves it to AuthTransport.
			params := operations.NewIssueAssetParamsWithTimeout(0).WithBody(body)
			answer, err := c.Operations.IssueAssetContext(ctx, params, nil)

			// end docs/clients.md
			if err != nil {
				return "", err
			}
			return *answer.Payload.AssetUUID, nil
		},
	}
}

// statusOf is the status that an error of a generated client tells.
func statusOf(err error) int {
	if e, ok := errors.AsType[*ampauth.Error](err); ok {
		return e.StatusCode
	}
	if e, ok := errors.AsType[*ogen.FailureStatusCode](err); ok {
		return e.StatusCode
	}
	if e, ok := errors.AsType[*operations.IssueAssetDefault](err); ok {
		return e.Code()
	}
	return 0
}
