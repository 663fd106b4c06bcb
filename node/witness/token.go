package witness

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vmctl/node/peer"
	"vmctl/node/wire"
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

func (w *Witness) ensureToken() error {
	if _, err := ReadToken(w.config.StateDir); !errors.Is(err, os.ErrNotExist) {
		return err
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

// useToken checks a secret against the token and makes a new token, so that
// each is good once.
func (w *Witness) useToken(secret []byte) error {
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
		return &wire.Refused{Code: "unsafe", Message: "the token is not, or no longer, good; read the present one with `vmctl witness token` on the witness"}
	}
	return w.newToken()
}
