package replicator

import (
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"vmctl/node/wire"
	"vmctl/snapshot/undo"
)

// Kinds of frames on a replication stream. Hello to HashRequest go from the owner
// to the peer, HashReply to Error come back.
const (
	KindHello wire.Kind = 32 + iota
	KindWrite
	KindZero
	KindMarker
	KindHashRequest
	KindHashReply
	KindAck
	KindError
	KindHold  // from the owner
	KindWhole // from the owner, and back
)

// Stream is one ordered connection between owner and peer; wire.Conn is one.
// Close unblocks Send and Receive.
type Stream interface {
	Send(kind wire.Kind, body any) error
	Receive() (wire.Kind, []byte, error)
	Close() error
}

// ErrMessage means a frame that cannot be decoded or makes no sense.
var ErrMessage = errors.New("bad replication message")

const (
	// ChunkSize is the unit of comparison in bytes.
	ChunkSize = undo.ChunkSize
	// maxData bounds the data of one Write; longer guest writes are split.
	maxData = 1 << 20
	// maxHashes bounds the chunks of one HashRequest.
	maxHashes = 1024
)

// DiskInfo names a disk and its size in bytes. A message names a disk by its
// place in Hello.Disks.
type DiskInfo struct {
	Name string
	Size int64
}

// Hello opens a stream. Replica is the identity that the owner takes the replica
// for; empty: any. Holds says that the owner sends Hold and Whole, of which owners
// of the version before know nothing.
type Hello struct {
	Guest   string
	Epoch   uint64
	Disks   []DiskInfo
	Replica []byte `msgpack:",omitempty"`
	Holds   bool   `msgpack:",omitempty"`
}

// Write stores Data at Offset. Id rises by one with every Write, Zero and
// Marker of a stream.
type Write struct {
	Disk   uint32
	ID     uint64
	Offset int64
	Data   []byte
}

// Zero makes a range read as zeroes.
type Zero struct {
	Disk   uint32
	ID     uint64
	Offset int64
	Length int64
}

// Marker cuts all disks at this place of the stream.
type Marker struct {
	ID       uint64
	Sequence uint64
}

// HashRequest asks for the sums of Count chunks from Offset, the last one cut
// off at the end of the disk. It is answered out of order with writes.
type HashRequest struct {
	Disk   uint32
	ID     uint64 // of requests, a count of its own
	Offset int64
	Count  uint32
}

// HashReply answers the HashRequest with the same ID: 16 bytes for each chunk.
type HashReply struct {
	ID   uint64
	Sums []byte
}

// Ack says that everything up to ID was applied.
type Ack struct {
	ID uint64
}

// Hold begins a resync: what follows makes of the disks, for a time, what the
// guest never had. With Keep the replica keeps the content that it has now, if that
// is whole; without, what it has is not to be relied on, but what it keeps already is.
type Hold struct {
	Keep bool
}

// Whole ends it: at this place of the stream the content is whole. It comes back
// with its ID when that is durable, and nothing older is kept any more.
type Whole struct {
	ID uint64
}

// Failure is the peer's last word before it ends a stream.
type Failure struct {
	Text string
}

// EncodeMsgpack writes the fields as an array, as decodeWrite reads them.
func (w *Write) EncodeMsgpack(to *msgpack.Encoder) error {
	return errors.Join(
		to.EncodeArrayLen(4),
		to.EncodeUint(uint64(w.Disk)),
		to.EncodeUint(w.ID),
		to.EncodeUint(uint64(w.Offset)),
		to.EncodeBytes(w.Data),
	)
}

// decode reads a message other than Write.
func decode(body []byte, into any) error {
	if err := wire.Decode(body, into); err != nil {
		return fmt.Errorf("%w: %T: %w", ErrMessage, into, err)
	}
	return nil
}
