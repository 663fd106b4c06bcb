package replica

import (
	"errors"
	"fmt"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"
)

// Kinds of frames on a checkpoint stream. The receiver speaks first (Ready).
// Each End and each Void is answered once, by Ack, Voided or Refused.
const (
	KindReady   wire.Kind = 16 + iota // receiver: Ready
	KindBegin                         // sender: Begin, then Chunk..., Blob..., End
	KindChunk                         // sender: Chunk
	KindBlob                          // sender: Blob
	KindEnd                           // sender: End
	KindVoid                          // sender: Void
	KindAck                           // receiver: Ack
	KindVoided                        // receiver: Ack
	KindRefused                       // receiver: Refused
)

// Stream is what both ends need of a connection (wire.Conn has it).
type Stream interface {
	Send(kind wire.Kind, body any) error
	Receive() (wire.Kind, []byte, error)
	Close() error
}

// Ready tells a sender where the replica stands.
type Ready struct {
	Floor    uint64 `msgpack:"floor"`    // epochs below are refused
	Epoch    uint64 `msgpack:"epoch"`    // of the committed checkpoint, 0 if none
	Sequence uint64 `msgpack:"sequence"` // of the committed checkpoint
	Root     uint64 `msgpack:"root"`     // full image its RAM started from
	Highest  uint64 `msgpack:"highest"`  // highest sequence seen in the newest epoch
	Newest   uint64 `msgpack:"newest"`   // that epoch
	Memory   bool   `msgpack:"memory"`   // RAM of the checkpoint is here
	// Room is how many bytes a full image may take if that RAM is given up for it;
	// 0: it is not known. The version before does not say.
	Room int64 `msgpack:"room,omitempty"`
}

// Begin opens a checkpoint.
type Begin struct {
	Epoch    uint64 `msgpack:"epoch"`
	Sequence uint64 `msgpack:"sequence"`
	Base     uint64 `msgpack:"base"`      // last acknowledged sequence; 0: a full image
	Root     uint64 `msgpack:"root"`      // sequence of the full image; own for a full one
	RAMSize  int64  `msgpack:"ram_size"`  // bytes
	RunState string `msgpack:"run_state"` // QEMU's word: what the guest was before the pause
	Time     int64  `msgpack:"time"`      // wall clock of the pause, ns since 1970
	Spec     []byte `msgpack:"spec"`      // hash of the spec the device state belongs to
	// Needs is how many bytes a full image takes at most; 0: it is not said.
	Needs int64 `msgpack:"needs,omitempty"`
	// Outdated: the replica does not count, and what is here may be given up for
	// this one. The version before does not say, and nothing is given up for it.
	Outdated bool `msgpack:"outdated,omitempty"`
}

// Chunk carries the next chunk of RAM, counted from 0.
type Chunk struct {
	Epoch    uint64 `msgpack:"e"`
	Sequence uint64 `msgpack:"s"`
	Index    uint64 `msgpack:"i"`
	Data     []byte `msgpack:"d"`
}

// Blob carries the next part of the device state.
type Blob struct {
	Epoch    uint64 `msgpack:"e"`
	Sequence uint64 `msgpack:"s"`
	Offset   int64  `msgpack:"o"`
	Data     []byte `msgpack:"d"`
}

// End closes a checkpoint with what must have arrived.
type End struct {
	Epoch    uint64 `msgpack:"epoch"`
	Sequence uint64 `msgpack:"sequence"`
	Chunks   uint64 `msgpack:"chunks"`
	Pages    uint64 `msgpack:"pages"`
	Zeros    uint64 `msgpack:"zeros"`
	Checksum uint64 `msgpack:"checksum"` // memory.Digest over the chunks
	BlobSum  []byte `msgpack:"blob_sum"` // sha256 of the device state
}

// Void says that the guest was ended on purpose: nothing up to this checkpoint
// may ever be resumed.
type Void struct {
	Epoch    uint64 `msgpack:"epoch"`
	Sequence uint64 `msgpack:"sequence"`
	Reason   string `msgpack:"reason"`
}

// Ack says that a checkpoint is committed (or a Void durable).
type Ack struct {
	Epoch    uint64 `msgpack:"epoch"`
	Sequence uint64 `msgpack:"sequence"`
}

// Refused says that a checkpoint was not committed and why.
type Refused struct {
	Epoch    uint64 `msgpack:"epoch"`
	Sequence uint64 `msgpack:"sequence"`
	Code     string `msgpack:"code"`
	Reason   string `msgpack:"reason"`
}

// Bounds of what is accepted from the other end.
const (
	maxBlob  = 64 << 20
	blobPart = 256 << 10
	maxText  = 4096
)

// Errors of both ends. Those with a code cross the link.
var (
	ErrStale    = errors.New("epoch is over")
	ErrUsed     = errors.New("sequence was used before")
	ErrNeedFull = errors.New("replica needs a full image")
	ErrVoid     = errors.New("checkpoint is void")
	ErrMark     = errors.New("disks did not reach the checkpoint's mark")
	ErrDamaged  = errors.New("checkpoint arrived damaged")
	ErrTaken    = errors.New("replica was taken over")
	ErrFailed   = errors.New("replica could not commit")

	ErrProtocol     = errors.New("unexpected frame on a checkpoint stream")
	ErrLink         = errors.New("checkpoint link is lost")
	ErrNoCheckpoint = errors.New("replica has no checkpoint")
	ErrMemoryAbsent = errors.New("replica has no RAM for its checkpoint")
	ErrRecord       = errors.New("replica's record is damaged")
	ErrInUse        = errors.New("replica is open elsewhere")
	ErrClosed       = errors.New("replica is closed")
)

var codes = map[string]error{
	"stale": ErrStale, "used": ErrUsed, "need_full": ErrNeedFull, "void": ErrVoid,
	"mark": ErrMark, "damaged": ErrDamaged, "taken": ErrTaken, "no_room": ErrNoRoom,
}

// codeOf gives the word that crosses the link for an error.
func codeOf(err error) string {
	for code, sentinel := range codes {
		if errors.Is(err, sentinel) {
			return code
		}
	}
	if errors.Is(err, memory.ErrChunk) || errors.Is(err, memory.ErrBounds) {
		return "damaged"
	}
	return "failed"
}

// asError is codeOf's other end.
func (m Refused) asError() error {
	sentinel, ok := codes[m.Code]
	if !ok {
		sentinel = ErrFailed
	}
	return &saidError{fmt.Sprintf("peer refused checkpoint %d/%d: %.300s", m.Epoch, m.Sequence, m.Reason), sentinel}
}

// saidError is a sentinel in the peer's words.
type saidError struct {
	text string
	is   error
}

func (e *saidError) Error() string { return e.text }
func (e *saidError) Unwrap() error { return e.is }
