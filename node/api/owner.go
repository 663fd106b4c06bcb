package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

const (
	// showBound is how long the owner may take to show a guest before what is
	// known here is shown.
	showBound = 2 * time.Second
	// watchEvery is how often it is asked whether the owner is still there
	// while it works on a request: a silent host ends no connection.
	watchEvery = 500 * time.Millisecond
)

// atOwner passes the request to the peer if the peer owns the guest. A show is
// answered from what is known here when the peer cannot be asked.
func (b *Backend) atOwner(here http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(forwarded) != "" {
			here(w, r)
			return
		}
		peer, err := b.Router.Route(r.PathValue("vm"))
		show := r.Method == http.MethodGet && strings.Count(r.URL.Path, "/") == 3
		switch {
		case err != nil && !show:
			b.fail(w, r, err)
		case err != nil || peer == nil:
			here(w, r)
		case show:
			b.showElsewhere(w, r, peer, here)
		default:
			b.passOn(w, r, peer)
		}
	}
}

func (b *Backend) proxy(peer http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     peer,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(b.Log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "peer"})
			p.Out.Header.Set(forwarded, b.Node)
		},
	}
}

// showElsewhere takes the owner's answer whole or not at all.
func (b *Backend) showElsewhere(w http.ResponseWriter, r *http.Request, peer http.RoundTripper, here http.HandlerFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), showBound)
	defer cancel()
	proxy := b.proxy(peer)
	proxy.ModifyResponse = func(response *http.Response) error {
		if response.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("the owner answered %s", response.Status)
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
		response.Body.Close()
		response.Body = io.NopCloser(bytes.NewReader(body))
		return err
	}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		b.Log.Debug("the owner did not show its guest", "vm", r.PathValue("vm"), "error", err)
		here(w, r)
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
}

// passOn gives a request to the owner, for as long as the owner is there.
func (b *Backend) passOn(w http.ResponseWriter, r *http.Request, peer http.RoundTripper) {
	ctx, cancel := context.WithCancelCause(r.Context())
	watched := make(chan struct{})
	go func() { defer close(watched); b.watch(ctx, r.PathValue("vm"), cancel) }()
	defer func() { cancel(nil); <-watched }()
	proxy := b.proxy(peer)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		b.fail(w, r, Errorf(Unreachable, "pass the request to the guest's owner: %v", err).
			WithHint("It may have been done or not; see `vmctl cluster status`."))
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
}

// watch cancels when the owner was found gone twice in a row.
func (b *Backend) watch(ctx context.Context, name string, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for gone := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if _, err := b.Router.Route(name); err == nil {
			gone = 0
		} else if gone++; gone == 2 {
			cancel(err)
			return
		}
	}
}
