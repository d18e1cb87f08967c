package ampauth

import (
	"io"
	"net/http"
	"net/url"
)

// The methods of http.Client, for a Client that was written as a struct: they fail where
// http.Client's would panic.

// Do is http.Client's. A Client without one gives an error that Is [ErrConfig].
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	if err := c.madeToSend(); err != nil {
		if req != nil && req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	return c.Client.Do(req)
}

// Get is http.Client's, as Do is.
func (c *Client) Get(url string) (*http.Response, error) {
	if err := c.madeToSend(); err != nil {
		return nil, err
	}
	return c.Client.Get(url)
}

// Head is http.Client's, as Do is.
func (c *Client) Head(url string) (*http.Response, error) {
	if err := c.madeToSend(); err != nil {
		return nil, err
	}
	return c.Client.Head(url)
}

// Post is http.Client's, as Do is.
func (c *Client) Post(url, contentType string, body io.Reader) (*http.Response, error) {
	if err := c.madeToSend(); err != nil {
		if closer, ok := body.(io.Closer); ok {
			_ = closer.Close()
		}
		return nil, err
	}
	return c.Client.Post(url, contentType, body)
}

// PostForm is http.Client's, as Do is.
func (c *Client) PostForm(url string, data url.Values) (*http.Response, error) {
	if err := c.madeToSend(); err != nil {
		return nil, err
	}
	return c.Client.PostForm(url, data)
}

// CloseIdleConnections is http.Client's. Without one there are none.
func (c *Client) CloseIdleConnections() {
	if c.madeToSend() == nil {
		c.Client.CloseIdleConnections()
	}
}

// madeToSend returns an error unless c has an http.Client.
func (c *Client) madeToSend() error {
	if c == nil || c.Client == nil {
		return notMade("Client", "NewClient")
	}
	return nil
}
