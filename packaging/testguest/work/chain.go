package work

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Token tells one run of a guest from every other. It is made at the guest's
// start and held in memory only: whoever shows it again was resumed.
type Token [16]byte

// NewToken is a random token.
func NewToken() Token {
	var t Token
	_, _ = rand.Read(t[:]) // never fails on Linux
	return t
}

func (t Token) String() string { return hex.EncodeToString(t[:]) }

// Chain is the hash over everything that was done so far.
type Chain [sha256.Size]byte

func (c Chain) String() string { return hex.EncodeToString(c[:]) }

// Sample is a piece of the guest's memory.
type Sample [32]byte

// Start is the chain of a new run on disks whose last record had the chain
// last (zero on empty disks).
func Start(last Chain, token Token) Chain {
	h := sha256.New()
	h.Write([]byte("start"))
	h.Write(last[:])
	h.Write(token[:])
	return Chain(h.Sum(nil))
}

// Link is the chain after a step.
func Link(previous Chain, counter uint64, sample Sample) Chain {
	h := sha256.New()
	h.Write(previous[:])
	h.Write(binary.LittleEndian.AppendUint64(nil, counter))
	h.Write(sample[:])
	return Chain(h.Sum(nil))
}
