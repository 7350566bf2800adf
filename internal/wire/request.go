package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/trust"
)

func (c *Client) get(ctx context.Context, name string, q url.Values, into any) error {
	return c.ask(ctx, http.MethodGet, name, q, nil, into)
}

func (c *Client) post(ctx context.Context, name string, w Write, into any) error {
	return c.ask(ctx, http.MethodPost, name, nil, w, into)
}

func (c *Client) ask(ctx context.Context, method, name string, q url.Values, body, into any) error {
	resp, err := c.do(ctx, method, name, q, body, TypeJSON)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		into = &struct{}{}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into); err != nil {
		return c.failed(ctx, name, err)
	}
	return nil
}

// do sends a request and returns the answer if it is one of this protocol, of this version, and no error.
func (c *Client) do(ctx context.Context, method, name string, q url.Values, body any, accept string) (*http.Response, error) {
	u := c.base.JoinPath(Prefix, name)
	if name == "" {
		u = c.base.JoinPath(Prefix)
	}
	u.RawQuery = q.Encode()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", TypeJSON)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // the URL of a socket means nothing to anybody
		}
		if errors.Is(err, trust.ErrForeign) {
			return nil, fmt.Errorf("%w: socket %s: %w", ErrForbidden, c.addr, err)
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrNoServer, c.addr, err)
	}
	if err := c.check(resp, accept); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// check returns the error that an answer is, if it is one.
func (c *Client) check(resp *http.Response, accept string) error {
	switch version := resp.Header.Get(VersionHeader); {
	case version == "":
		if resp.StatusCode == http.StatusUnauthorized {
			return fmt.Errorf("%w: %s wants a password (http://USER:PASSWORD@HOST/PATH)", ErrForbidden, c.addr)
		}
		return fmt.Errorf("%w at %s: what answers is no inspection server (%s)", ErrNoServer, c.addr, display.Text(resp.Status, 100))
	case version != strconv.Itoa(Version):
		return fmt.Errorf("%w: %s speaks version %.10q, this program %d", ErrVersion, c.addr, version, Version)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == accept {
		return nil
	}
	var f struct {
		Error Failure `json:"error"`
	}
	err := json.NewDecoder(io.LimitReader(resp.Body, maxFailure)).Decode(&f)
	if err != nil || f.Error.Code == "" {
		return fmt.Errorf("%w: %s answers %s", ErrInternal, c.addr, display.Text(resp.Status, 100))
	}
	return f.Error.Err()
}

// failed is the error of an answer that broke off.
func (c *Client) failed(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: the answer of %s to %s broke off: %w", ErrNoServer, c.addr, name, err)
}
