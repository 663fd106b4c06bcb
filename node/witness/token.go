package witness

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vmctl/node/api"
	"vmctl/node/peer"
)

// tokenFile holds the token that enrols the next cluster. It is replaced when
// it is used.
const tokenFile = "token"

// ReadToken returns the token that enrols the next cluster with the witness
// whose state directory is given.
func ReadToken(stateDir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(stateDir, tokenFile))
	if err != nil {
		return "", fmt.Errorf("read the witness's token: %w", err)
	}
	return string(bytes.TrimSpace(data)), nil
}

// ensureToken makes a token if there is none, or if a power cut left a file
// without one.
func (w *Witness) ensureToken() error {
	text, err := ReadToken(w.config.StateDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	token, err := peer.ParseToken(text, peer.WitnessToken)
	if err == nil && bytes.Equal(token.Fingerprint, peer.Fingerprint(w.self.Cert)) {
		return nil
	}
	return w.newToken()
}

func (w *Witness) newToken() error {
	token, err := peer.NewToken(peer.WitnessToken, w.self.Cert)
	if err != nil {
		return err
	}
	path := filepath.Join(w.config.StateDir, tokenFile)
	if err := os.WriteFile(path+".new", []byte(token.String()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the witness's token: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the witness's token: %w", err)
	}
	return nil
}

// useToken checks a secret against the token, asks check, and makes a new
// token, so that each is good once.
func (w *Witness) useToken(secret []byte, check func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	text, err := ReadToken(w.config.StateDir)
	if err != nil {
		return err
	}
	token, err := peer.ParseToken(text, peer.WitnessToken)
	if err != nil {
		return fmt.Errorf("the witness's own token file is damaged; remove it and restart the witness: %w", err)
	}
	if subtle.ConstantTimeCompare(token.Secret, secret) != 1 {
		return refuse(api.Unsafe, "the token is not, or no longer, good; read the present one with `vmctl witness token` on the witness")
	}
	if err := check(); err != nil {
		return err
	}
	return w.newToken()
}
