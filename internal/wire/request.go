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
	"time"

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
	if method != http.MethodGet || c.Patience <= 0 {
		return c.answer(ctx, method, name, q, body, into, nil)
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &pace{end: time.Now().Add(c.Patience), timer: time.AfterFunc(c.Patience, cancel)}
	defer p.timer.Stop()
	err := c.answer(within, method, name, q, body, into, p)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %s takes too long to answer to %s", ErrNoServer, c.addr, name)
	}
	return err
}

// answer is ask without an end of its own.
func (c *Client) answer(ctx context.Context, method, name string, q url.Values, body, into any, p *pace) error {
	resp, err := c.do(ctx, method, name, q, body, TypeJSON)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		into = &struct{}{}
	}
	most := int64(maxWords)
	if q.Has("values") {
		most = maxAnswer
	}
	from := io.LimitReader(resp.Body, most)
	if p != nil {
		p.from = from
		from = p
	}
	if err := json.NewDecoder(from).Decode(into); err != nil {
		return c.failed(ctx, name, err)
	}
	return nil
}

// pace moves the end of an answer while that comes.
type pace struct {
	from  io.Reader
	end   time.Time
	timer *time.Timer
}

// Read is that of an io.Reader.
func (p *pace) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	p.end = p.end.Add(time.Duration(n) * time.Second >> 20)
	p.timer.Reset(time.Until(p.end))
	return n, err
}

// do sends a request and returns the answer if it is one of this protocol, of this version, and no error.
func (c *Client) do(
	ctx context.Context, method, name string, q url.Values, body any, accept string,
) (*http.Response, error) {
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
		return fmt.Errorf("%w at %s: what answers is no inspection server (%s)", ErrNoServer, c.addr,
			display.Text(resp.Status, 100))
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
