package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Client calls an agent. Its methods return *Error on failure.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client of the agent that listens on the unix socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// NewRemoteClient makes a client that reaches an agent through transport.
func NewRemoteClient(node string, transport http.RoundTripper) *Client {
	return &Client{socket: "node " + node, http: &http.Client{Transport: &marking{transport}}}
}

// marking sets the header that keeps a request from being passed on again.
type marking struct{ next http.RoundTripper }

func (m *marking) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(forwarded, "peer")
	return m.next.RoundTrip(r)
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call makes one request; in and out may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return Errorf(Failed, "encode the request: %v", err)
		}
		body = bytes.NewReader(data)
	}
	response, err := c.open(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		_, _ = io.Copy(io.Discard, response.Body)
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return Errorf(Failed, "read the agent's answer: %v", err)
	}
	return nil
}

// open makes a request and returns its response if that is a success.
func (c *Client) open(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://vmctl"+path, body)
	if err != nil {
		return nil, Errorf(Usage, "make the request: %v", err)
	}
	for key, values := range header {
		request.Header[key] = values
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if response.StatusCode < 300 || response.StatusCode == http.StatusSwitchingProtocols && header.Get("Upgrade") != "" {
		return response, nil
	}
	defer response.Body.Close()
	var failure struct{ Error *Error }
	if err := json.NewDecoder(io.LimitReader(response.Body, maxBody)).Decode(&failure); err != nil || failure.Error == nil {
		return nil, Errorf(Failed, "the agent answered %s", response.Status)
	}
	return nil, failure.Error
}

func (c *Client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return Errorf(Unreachable, "no agent answers at %s: %v", c.socket, op.Err).
			WithHint("Is it running? Start it with `systemctl start vmctl` or `vmctl node run`, or name its socket with --socket.")
	}
	return Errorf(Unreachable, "the agent at %s did not answer: %v", c.socket, err)
}

func vmPath(name string, rest string) string { return "/v1/vms/" + url.PathEscape(name) + rest }

// Status asks for the one-screen status.
func (c *Client) Status(ctx context.Context) (out Status, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/status", nil, &out)
}

// HA asks for the lease core's view.
func (c *Client) HA(ctx context.Context) (out HAStatus, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/ha", nil, &out)
}

// Why asks for the explanation of a guest's place.
func (c *Client) Why(ctx context.Context, name string) (out Why, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/ha/"+url.PathEscape(name), nil, &out)
}

// Promote makes this node the owner of a guest by hand.
func (c *Client) Promote(ctx context.Context, name string, confirmPeerOff bool) (out VM, err error) {
	in := map[string]bool{"confirm_peer_off": confirmPeerOff}
	return out, c.call(ctx, http.MethodPost, "/v1/ha/"+url.PathEscape(name)+"/promote", in, &out)
}

// Init makes a cluster of this node.
func (c *Client) Init(ctx context.Context, name string) (out Cluster, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/cluster/init", map[string]string{"name": name}, &out)
}

// NewToken makes a join token.
func (c *Client) NewToken(ctx context.Context) (out Token, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/cluster/token", nil, &out)
}

// Join takes this node into the cluster of the node at addr.
func (c *Client) Join(ctx context.Context, addr, token string) (out Cluster, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/cluster/join", map[string]string{"addr": addr, "token": token}, &out)
}

// Cluster shows the cluster.
func (c *Client) Cluster(ctx context.Context) (out Cluster, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/cluster", nil, &out)
}

// Leave takes this node out of its cluster.
func (c *Client) Leave(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, "/v1/cluster", nil, nil)
}

// AddWitness enrols the cluster with a witness.
func (c *Client) AddWitness(ctx context.Context, addr, token string) (out Witness, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/witness", map[string]string{"addr": addr, "token": token}, &out)
}

// RemoveWitness goes back to a bare pair.
func (c *Client) RemoveWitness(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, "/v1/witness", nil, nil)
}

// VMs lists guests.
func (c *Client) VMs(ctx context.Context) (out []VM, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/vms", nil, &out)
}

// VM shows one guest.
func (c *Client) VM(ctx context.Context, name string) (out VM, err error) {
	return out, c.call(ctx, http.MethodGet, vmPath(name, ""), nil, &out)
}

// Create makes a guest of a spec in YAML or JSON.
func (c *Client) Create(ctx context.Context, spec []byte) (out VM, err error) {
	return c.send(ctx, http.MethodPost, "/v1/vms", spec)
}

// Change alters a guest's spec; change is a spec, in YAML or JSON, of the
// fields to change.
func (c *Client) Change(ctx context.Context, name string, change []byte) (VM, error) {
	return c.send(ctx, http.MethodPatch, vmPath(name, ""), change)
}

func (c *Client) send(ctx context.Context, method, path string, body []byte) (out VM, err error) {
	response, err := c.open(ctx, method, path, bytes.NewReader(body), nil)
	if err != nil {
		return out, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&out); err != nil {
		return out, Errorf(Failed, "read the agent's answer: %v", err)
	}
	return out, nil
}

// Act does a verb to a guest; bound is how long a stop may take before the
// guest is ended, 0 for the default.
func (c *Client) Act(ctx context.Context, name string, verb Verb, bound time.Duration) (out VM, err error) {
	path := vmPath(name, "/"+string(verb))
	if bound > 0 {
		path += "?timeout=" + strconv.FormatFloat(bound.Seconds(), 'f', -1, 64)
	}
	return out, c.call(ctx, http.MethodPost, path, nil, &out)
}

// Remove deletes a guest, its disks and its replica.
func (c *Client) Remove(ctx context.Context, name string, force bool) error {
	return c.call(ctx, http.MethodDelete, vmPath(name, fmt.Sprintf("?force=%t", force)), nil, nil)
}

// Logs opens a guest's serial log; with follow it goes on until ctx ends.
func (c *Client) Logs(ctx context.Context, name string, follow bool) (io.ReadCloser, error) {
	response, err := c.open(ctx, http.MethodGet, vmPath(name, fmt.Sprintf("/logs?follow=%t", follow)), nil, nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// Console opens a guest's serial line.
func (c *Client) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {consoleProtocol}}
	response, err := c.open(ctx, http.MethodPost, vmPath(name, "/console"), nil, header)
	if err != nil {
		return nil, err
	}
	line, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		response.Body.Close()
		return nil, Errorf(Failed, "the agent did not open a console")
	}
	return line, nil
}

// Events calls each for every event the filter selects, until each fails or,
// when following, ctx ends.
func (c *Client) Events(ctx context.Context, filter EventFilter, each func(Event) error) error {
	query := url.Values{"vm": {filter.VM}, "follow": {strconv.FormatBool(filter.Follow)}}
	if !filter.Since.IsZero() {
		query.Set("since", filter.Since.Format(time.RFC3339Nano))
	}
	response, err := c.open(ctx, http.MethodGet, "/v1/events?"+query.Encode(), nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxBody)
	for lines.Scan() {
		var event Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return Errorf(Failed, "read an event: %v", err)
		}
		if err := each(event); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return Errorf(Unreachable, "the agent stopped sending events: %v", err)
	}
	return nil
}
