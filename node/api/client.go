package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Client calls an agent. Its methods return *Error on failure.
type Client struct {
	// Force makes requests that the agent would refuse because one node alone
	// could not hold all guests then.
	Force bool

	socket string
	http   *http.Client
	ping   time.Duration // how often a silent agent is asked whether it lives
}

// NewClient makes a client of the agent that listens on the unix socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return newClient(socket, &http.Transport{DialContext: dial})
}

// NewRemoteClient makes a client that reaches an agent through transport.
func NewRemoteClient(node string, transport http.RoundTripper) *Client {
	return newClient("node "+node, &marking{transport})
}

func newClient(name string, transport http.RoundTripper) *Client {
	// No call is answered by a redirect: following one would make another call.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{socket: name, http: &http.Client{Transport: transport, CheckRedirect: stay}, ping: pingEvery}
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
	ctx, stop := c.watched(ctx)
	defer stop()
	response, err := c.open(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		out = &struct{}{}
	}
	return c.decode(response.Body, out)
}

// decode reads the answer. One that is cut off says nothing of what was done.
func (c *Client) decode(body io.Reader, out any) error {
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return Errorf(Unreachable, "the answer of the agent at %s is not whole: %v", c.socket, err).
			WithHint("It may have been done or not; look with `vmctl status`.")
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
		var silent *Error
		if errors.As(context.Cause(ctx), &silent) {
			return nil, silent
		}
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
	if errors.Is(err, fs.ErrPermission) {
		return Errorf(Unreachable, "the agent at %s may be called by root only", c.socket).WithHint("Run the command as root.")
	}
	if errors.As(err, &op) && op.Op == "dial" {
		return Errorf(Unreachable, "no agent answers at %s: %v", c.socket, op.Err).
			WithHint("Is it running? Start it with `systemctl start vmctl` or `vmctl node run`, or name its socket with --socket.")
	}
	return Errorf(Unreachable, "the agent at %s did not answer: %v", c.socket, err)
}

// path makes the path of a call about a guest. A name that a server would take
// for a step of the path is no guest's.
func path(collection, name, rest string) (string, error) {
	if name == "" || name == "." || name == ".." {
		return "", Errorf(NotFound, "no guest is named %q", name).WithHint("`vmctl vm ls` lists them.")
	}
	return "/v1/" + collection + "/" + url.PathEscape(name) + rest, nil
}

// callVM makes one request about a guest.
func (c *Client) callVM(ctx context.Context, method, collection, name, rest string, in, out any) error {
	path, err := path(collection, name, rest)
	if err != nil {
		return err
	}
	return c.call(ctx, method, path, in, out)
}

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
	return out, c.callVM(ctx, http.MethodGet, "ha", name, "", nil, &out)
}

// Promote makes this node the owner of a guest by hand.
func (c *Client) Promote(ctx context.Context, name string, confirmPeerOff bool) (out VM, err error) {
	in := map[string]bool{"confirm_peer_off": confirmPeerOff}
	return out, c.callVM(ctx, http.MethodPost, "ha", name, "/promote", in, &out)
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

// SetMode changes who is the third vote.
func (c *Client) SetMode(ctx context.Context, change ModeChange) (out Cluster, err error) {
	return out, c.call(ctx, http.MethodPut, "/v1/cluster/mode", change, &out)
}

// CheckFence asks the node's fencing device for its peer's power.
func (c *Client) CheckFence(ctx context.Context) (out FenceCheck, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/cluster/fence/check", nil, &out)
}

// VMs lists guests.
func (c *Client) VMs(ctx context.Context) (out []VM, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/vms", nil, &out)
}

// VM shows one guest.
func (c *Client) VM(ctx context.Context, name string) (out VM, err error) {
	return out, c.callVM(ctx, http.MethodGet, "vms", name, "", nil, &out)
}

// Create makes a guest of a spec in YAML or JSON.
func (c *Client) Create(ctx context.Context, spec []byte) (out VM, err error) {
	return c.send(ctx, http.MethodPost, "/v1/vms"+c.query(nil), spec)
}

// Change alters a guest's spec; change is a spec, in YAML or JSON, of the
// fields to change.
func (c *Client) Change(ctx context.Context, name string, change []byte) (VM, error) {
	path, err := path("vms", name, "")
	if err != nil {
		return VM{}, err
	}
	return c.send(ctx, http.MethodPatch, path+c.query(nil), change)
}

func (c *Client) send(ctx context.Context, method, path string, body []byte) (out VM, err error) {
	ctx, stop := c.watched(ctx)
	defer stop()
	response, err := c.open(ctx, method, path, bytes.NewReader(body), nil)
	if err != nil {
		return out, err
	}
	defer response.Body.Close()
	return out, c.decode(response.Body, &out)
}

// Act does a verb to a guest; bound is how long a stop may take before the
// guest is ended, 0 for the default.
func (c *Client) Act(ctx context.Context, name string, verb Verb, bound time.Duration) (out VM, err error) {
	words := url.Values{}
	if bound > 0 {
		words.Set("timeout", strconv.FormatFloat(bound.Seconds(), 'f', -1, 64))
	}
	return out, c.callVM(ctx, http.MethodPost, "vms", name, "/"+string(verb)+c.query(words), nil, &out)
}

// query is the query of a call, with force if that is asked for.
func (c *Client) query(words url.Values) string {
	if c.Force {
		if words == nil {
			words = url.Values{}
		}
		words.Set("force", "true")
	}
	if len(words) == 0 {
		return ""
	}
	return "?" + words.Encode()
}

// Remove deletes a guest, its disks and its replica.
func (c *Client) Remove(ctx context.Context, name string, force bool) error {
	return c.callVM(ctx, http.MethodDelete, "vms", name, fmt.Sprintf("?force=%t", force), nil, nil)
}
