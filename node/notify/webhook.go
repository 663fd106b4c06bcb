package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// webhook posts deliveries to a URL.
type webhook struct {
	url, host  string
	secretFile string
	timeout    time.Duration
	client     *http.Client
}

// mostRetryAfter bounds what a server may ask for.
const mostRetryAfter = 5 * time.Minute

func newWebhook(t Target) (*webhook, error) {
	target, err := url.Parse(t.Webhook)
	if err != nil {
		return nil, errors.New("webhook: not a URL")
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca_file: %s has no certificate", t.CAFile)
		}
	}
	w := &webhook{url: t.Webhook, host: target.Host, secretFile: t.SecretFile, timeout: t.timeout()}
	w.client = &http.Client{
		// A connection for each delivery: they are seldom, and a kept one may have
		// died unnoticed.
		Transport: &http.Transport{TLSClientConfig: settings, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
			ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	_, err = w.secret()
	return w, err
}

func (w *webhook) name() string { return "webhook " + w.host }

// secret is read for every attempt, so that a new one needs no restart.
func (w *webhook) secret() ([]byte, error) {
	if w.secretFile == "" {
		return nil, nil
	}
	file, err := os.OpenFile(w.secretFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read secret_file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read secret_file: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read secret_file: %s is no regular file", w.secretFile)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("read secret_file: others may read it; run: chmod 600 %s", w.secretFile)
	}
	secret, err := io.ReadAll(io.LimitReader(file, 4096))
	if err != nil {
		return nil, fmt.Errorf("read secret_file: %w", err)
	}
	if secret = bytes.TrimRight(secret, "\r\n"); len(secret) == 0 {
		return nil, fmt.Errorf("read secret_file: %s is empty", w.secretFile)
	}
	return secret, nil
}

func (w *webhook) send(ctx context.Context, d Delivery) error {
	body, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	secret, err := w.secret()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL is not valid")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "vmctl")
	request.Header.Set("Vmctl-Delivery", d.ID)
	if secret != nil {
		at := strconv.FormatInt(time.Now().Unix(), 10)
		request.Header.Set("Vmctl-Timestamp", at)
		request.Header.Set("Vmctl-Signature", sign(secret, at, body))
	}
	answer, err := w.client.Do(request)
	if err != nil {
		// The error's own text has the URL, which may have a secret.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 4096) // what it says does not matter
	return judge(answer)
}

func sign(secret []byte, at string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// judge says what a server's status means.
func judge(answer *http.Response) error {
	code := answer.StatusCode
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 300 && code < 400:
		return fmt.Errorf("the server redirects (%d), which is not followed: give the final URL", code)
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: the server answered %d", errRefused, code)
	}
	err := fmt.Errorf("the server answered %d %s", code, http.StatusText(code))
	seconds, notNumber := strconv.Atoi(strings.TrimSpace(answer.Header.Get("Retry-After")))
	if notNumber == nil && seconds > 0 {
		return after{err, min(time.Duration(min(seconds, 3600))*time.Second, mostRetryAfter)}
	}
	return err
}
