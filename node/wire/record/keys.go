package record

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// Types of content.
const (
	typeAlert = 21
	typeData  = 23
)

const (
	// HeaderSize is how long a record's header is.
	HeaderSize = 5
	// MaxPlain is the most plaintext in one record.
	MaxPlain = 1 << 14
	// MaxRecord is the longest record, with its header.
	MaxRecord = HeaderSize + MaxPlain + 256
	// maxRecords is far below what AES-GCM allows for full records (2^24.5);
	// a calm lease connection needs 64 days for it.
	maxRecords = 1 << 23
)

// Errors of a connection; each ends it.
var (
	ErrRecord = errors.New("not a record of this connection")
	ErrSpent  = errors.New("this connection's keys are used up; make a new one")
	ErrClosed = errors.New("the other end closed the connection")
)

// Keys seals or opens the records of one direction; the zero value does neither.
// A copy goes on with the same numbers: only one of the two may be used. Not
// safe for concurrent use.
type Keys struct {
	key    [32]byte
	iv     [12]byte
	suite  uint16
	number uint64 // of the next record
}

// packedSize is how long packed keys are.
const packedSize = 2 + 8 + 12 + 32

// Pack takes the keys out, for the process that goes on with them: this value
// has none any more.
func (k *Keys) Pack() []byte {
	data := binary.BigEndian.AppendUint16(make([]byte, 0, packedSize), k.suite)
	data = binary.BigEndian.AppendUint64(data, k.number)
	data = append(append(data, k.iv[:]...), k.key[:]...)
	*k = Keys{}
	return data
}

// Unpack makes keys of what Pack took out.
func Unpack(data []byte) (k Keys, err error) {
	if len(data) != packedSize {
		return k, fmt.Errorf("keys in %d bytes, %d expected", len(data), packedSize)
	}
	k.suite = binary.BigEndian.Uint16(data)
	if _, _, err := suites(k.suite); err != nil {
		return Keys{}, err
	}
	k.number = binary.BigEndian.Uint64(data[2:])
	copy(k.iv[:], data[10:])
	copy(k.key[:], data[22:])
	return k, nil
}

// suites says how a cipher suite derives its keys.
func suites(suite uint16) (hash func() hash.Hash, keySize int, err error) {
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
		return sha256.New, 16, nil
	case tls.TLS_AES_256_GCM_SHA384:
		return sha512.New384, 32, nil
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return sha256.New, 32, nil
	}
	return nil, 0, fmt.Errorf("cipher suite %s is not one of TLS 1.3", tls.CipherSuiteName(suite))
}

// newKeys derives a direction's keys from its traffic secret (RFC 8446, 7.3).
func newKeys(suite uint16, secret []byte) (k Keys, err error) {
	hash, size, err := suites(suite)
	if err != nil {
		return k, err
	}
	k.suite = suite
	key, err := expand(hash, secret, "key", size)
	if err != nil {
		return k, err
	}
	iv, err := expand(hash, secret, "iv", len(k.iv))
	if err != nil {
		return k, err
	}
	copy(k.key[:], key)
	copy(k.iv[:], iv)
	return k, nil
}

// expand is HKDF-Expand-Label without a context.
func expand(hash func() hash.Hash, secret []byte, label string, size int) ([]byte, error) {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	return hkdf.Expand(hash, secret, string(append(info, 0)), size)
}

func (k *Keys) cipher() (cipher.AEAD, error) {
	if k.suite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		return chacha20poly1305.New(k.key[:])
	}
	_, size, err := suites(k.suite)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k.key[:size])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// next gives the nonce of the next record and counts it.
func (k *Keys) next() (nonce [12]byte, err error) {
	if k.number >= maxRecords {
		return nonce, ErrSpent
	}
	nonce = k.iv
	number := binary.BigEndian.Uint64(nonce[4:]) ^ k.number
	binary.BigEndian.PutUint64(nonce[4:], number)
	k.number++
	return nonce, nil
}

// Seal appends the records that carry data to dst.
func (k *Keys) Seal(dst, data []byte) ([]byte, error) {
	aead, err := k.cipher()
	if err != nil {
		return nil, err
	}
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), MaxPlain)
		nonce, err := k.next()
		if err != nil {
			return nil, err
		}
		at := len(dst)
		dst = append(dst, typeData, 3, 3)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n+1+aead.Overhead()))
		dst = append(dst, data[:n]...)
		dst = append(dst, typeData)
		head, body := dst[at:at+HeaderSize], dst[at+HeaderSize:]
		dst = append(dst[:at+HeaderSize], aead.Seal(body[:0], nonce[:], body, head)...)
		data = data[n:]
	}
	return dst, nil
}

// Length is how long the record is whose header begins data, or 0 if there is
// not enough of it to know.
func Length(data []byte) (int, error) {
	if len(data) < HeaderSize {
		return 0, nil
	}
	n := HeaderSize + int(binary.BigEndian.Uint16(data[3:]))
	if data[0] != typeData || n > MaxRecord {
		return 0, fmt.Errorf("a record of type %d, %d bytes: %w", data[0], n, ErrRecord)
	}
	return n, nil
}

// Open decrypts one whole record in place and returns its data, which may be
// empty.
func (k *Keys) Open(record []byte) ([]byte, error) {
	aead, err := k.cipher()
	if err != nil {
		return nil, err
	}
	nonce, err := k.next()
	if err != nil {
		return nil, err
	}
	head, body := record[:HeaderSize], record[HeaderSize:]
	plain, err := aead.Open(body[:0], nonce[:], body, head)
	if err != nil {
		return nil, fmt.Errorf("open record %d: %w", k.number-1, ErrRecord)
	}
	if len(plain) > MaxPlain+1 { // padding counts
		return nil, fmt.Errorf("record %d is too long: %w", k.number-1, ErrRecord)
	}
	end := len(plain) - 1
	for end >= 0 && plain[end] == 0 { // padding
		end--
	}
	switch {
	case end < 0:
		return nil, fmt.Errorf("record %d without a type: %w", k.number-1, ErrRecord)
	case plain[end] == typeData:
		return plain[:end], nil
	case plain[end] == typeAlert:
		return nil, ErrClosed
	}
	// A key update, the one message that could come here: no vmctl sends it.
	return nil, fmt.Errorf("record %d is of type %d: %w", k.number-1, plain[end], ErrRecord)
}
