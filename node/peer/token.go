package peer

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/vmihailenco/msgpack/v5"

	"vmctl/node/wire"
)

// TokenKind says what a token admits to.
type TokenKind string

// A join token takes a node into a cluster; a witness token enrols a cluster
// with a witness.
const (
	JoinToken    TokenKind = "join"
	WitnessToken TokenKind = "witness"
)

// ErrToken says that a token is unknown, used, expired, or not a token.
var ErrToken = errors.New("token not accepted")

// Token is a secret that is good once, and the fingerprint of the certificate
// that whoever takes it must show: the two ends prove themselves to each other.
type Token struct {
	Kind        TokenKind `msgpack:"k"`
	Secret      []byte    `msgpack:"s"`
	Fingerprint []byte    `msgpack:"f"` // of the cluster's authority, or of the witness
}

const tokenPrefix = "vmctl-"

// NewToken makes a token for the holder of the certificate.
func NewToken(kind TokenKind, certDER []byte) (Token, error) {
	secret := make([]byte, 20)
	if _, err := rand.Read(secret); err != nil {
		return Token{}, fmt.Errorf("make a token: %w", err)
	}
	return Token{Kind: kind, Secret: secret, Fingerprint: Fingerprint(certDER)}, nil
}

// Hash names the token where it is kept: the secret itself is not stored.
func (t Token) Hash() string {
	sum := sha256.Sum256(t.Secret)
	return hex.EncodeToString(sum[:])
}

func (t Token) String() string {
	data, err := msgpack.Marshal(&t)
	if err != nil {
		return ""
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseToken reads what a user pasted.
func ParseToken(text string, kind TokenKind) (Token, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("read token: it does not start with %q; paste the whole token: %w", tokenPrefix, ErrToken)
	}
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return Token{}, fmt.Errorf("read token: it is damaged; paste the whole token: %w", ErrToken)
	}
	var t Token
	if err := wire.Decode(data, &t); err != nil || len(t.Secret) < 16 || len(t.Fingerprint) != sha256.Size {
		return Token{}, fmt.Errorf("read token: it is damaged; paste the whole token: %w", ErrToken)
	}
	if t.Kind != kind {
		return Token{}, fmt.Errorf("read token: this is a %s token, a %s token is needed: %w", t.Kind, kind, ErrToken)
	}
	return t, nil
}
