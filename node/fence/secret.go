package fence

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

const mostSecret = 4096 // bytes of a secret

// readSecret reads a secret: one line of a regular file that nobody but its
// owner may read.
func readSecret(path string) (string, error) {
	// A FIFO must not hold a shot up.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("read a secret: %s is no regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("read a secret: others may read %s; run: chmod 600 %s", path, path)
	}
	data, err := io.ReadAll(io.LimitReader(file, mostSecret+1))
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if err := checkValue(secret); err != nil {
		return "", fmt.Errorf("read a secret: %s: %w", path, err)
	}
	if len(data) > mostSecret || !utf8.ValidString(secret) {
		return "", fmt.Errorf("read a secret: %s: %w", path, errors.New("not a text of 4096 bytes at most"))
	}
	return secret, nil
}

// readSecrets reads all secrets, by option.
func (d Device) readSecrets() (map[string]string, error) {
	secrets := map[string]string{}
	for _, name := range sortedKeys(d.SecretFiles) {
		secret, err := readSecret(d.SecretFiles[name])
		if err != nil {
			return nil, err
		}
		secrets[name] = secret
	}
	return secrets, nil
}

// redactor takes secrets out of what is logged.
type redactor struct {
	forms   []string // every way a secret may be written, the longest first
	longest int
}

func newRedactor(secrets []string) redactor {
	var r redactor
	for _, s := range secrets {
		// Agents print options as they are, in URLs, in headers and quoted by Python or a shell.
		r.forms = append(r.forms, s, url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s)),
			strings.ReplaceAll(s, `\`, `\\`), strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `\'`), strings.ReplaceAll(s, `'`, `'"'"'`))
	}
	slices.SortFunc(r.forms, func(a, b string) int { return len(b) - len(a) })
	r.forms = slices.Compact(r.forms)
	if len(r.forms) > 0 {
		r.longest = len(r.forms[0])
	}
	return r
}

// clean takes the secrets out of text. Of a text that was cut, the end goes
// too: it may be the beginning of a secret.
func (r redactor) clean(text string, cut bool) string {
	for _, form := range r.forms {
		text = strings.ReplaceAll(text, form, "***")
	}
	if cut && r.longest > 0 {
		text = text[:max(0, len(text)-r.longest+1)]
	}
	return strings.TrimSpace(strings.ToValidUTF8(text, "?"))
}

// brief is text for one line of a log or an error.
func brief(text string, most int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
