package lease

import (
	"encoding/binary"
	"slices"
	"time"

	"vmctl/ha"
)

// maxPacked is the longest packed heartbeat. One string of it keeps it all in
// memory, and a core keeps strings of records for as long as they do not
// change: the longer one is, the more could be kept for little.
const maxPacked = 1 << 10

// usual are names that need no place in a packed heartbeat; the sender's comes
// before them.
var usual = [...]string{
	"", string(ha.LevelNone), string(ha.LevelRestart), string(ha.LevelResume), string(ha.LevelFT),
	string(ha.ModeWitness), string(ha.ModeFence), string(ha.ModeBias), string(ha.FenceVote),
}

// pack gives a heartbeat of that sender the form in which an end with many
// connections keeps it: a fifth of what it takes as it is, its names included.
// It is "" if it would be long.
func pack(m *ha.Heartbeat) string {
	p := packer{from: string(m.From)}
	p.numbers(m.Boot, m.Seq, m.To, m.Cluster.Gen, uint64(m.Cluster.FenceDelay))
	c := &m.Cluster
	for _, id := range []ha.NodeID{c.By, c.Nodes[0], c.Nodes[1], c.Witness, c.Bias} {
		p.name(string(id))
	}
	p.name(string(c.Mode))
	for _, list := range [][]ha.Record{m.Renewals, m.Handovers} {
		if list == nil {
			p.numbers(0)
			continue
		}
		p.numbers(uint64(len(list)) + 1)
		for i := range list {
			if len(p.out) > maxPacked {
				return ""
			}
			p.record(&list[i])
		}
	}
	if len(p.out) > maxPacked {
		return ""
	}
	return string(p.out)
}

type packer struct {
	from  string
	out   []byte
	names []string
}

func (p *packer) numbers(list ...uint64) {
	for _, n := range list {
		p.out = binary.AppendUvarint(p.out, n)
	}
}

// name writes a name, or where it stands already.
func (p *packer) name(s string) {
	if s == p.from {
		p.numbers(1)
		return
	}
	if i := slices.Index(usual[:], s); i >= 0 {
		p.numbers(2 + uint64(i))
		return
	}
	if i := slices.Index(p.names, s); i >= 0 {
		p.numbers(2 + uint64(len(usual)+i))
		return
	}
	p.numbers(0, uint64(len(s)))
	p.out = append(p.out, s...)
	p.names = append(p.names, s)
}

func (p *packer) record(r *ha.Record) {
	for _, s := range []string{string(r.Guest), string(r.Owner), string(r.Standby), string(r.Arbiter), string(r.Level), string(r.Bound)} {
		p.name(s)
	}
	flags := uint64(0)
	for i, set := range []bool{r.Run, r.Outdated, r.Gone, r.Taking, r.Handed, r.Alone} {
		if set {
			flags |= 1 << i
		}
	}
	p.numbers(r.Epoch, r.Rev, r.Promised, flags)
}

// unpack makes the heartbeat of that sender again. Its names are parts of the
// packed one.
func unpack(from ha.NodeID, packed string) (m ha.Heartbeat) {
	u := unpacker{from: string(from), left: packed}
	m.From = from
	m.Boot, m.Seq, m.To = u.number(), u.number(), u.number()
	c := &m.Cluster
	c.Gen, c.FenceDelay = u.number(), time.Duration(u.number())
	for _, id := range []*ha.NodeID{&c.By, &c.Nodes[0], &c.Nodes[1], &c.Witness, &c.Bias} {
		*id = ha.NodeID(u.name())
	}
	c.Mode = ha.Mode(u.name())
	for _, list := range []*[]ha.Record{&m.Renewals, &m.Handovers} {
		n := u.number()
		if n == 0 {
			continue
		}
		*list = make([]ha.Record, n-1)
		for i := range *list {
			u.record(&(*list)[i])
		}
	}
	return m
}

type unpacker struct {
	from  string
	left  string
	names [16]string // the first ones, in place
	more  []string
	n     int
}

func (u *unpacker) number() (n uint64) {
	for shift := 0; ; shift += 7 {
		b := u.left[0]
		u.left = u.left[1:]
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (u *unpacker) name() string {
	switch n := u.number(); {
	case n == 1:
		return u.from
	case n >= 2 && n < 2+uint64(len(usual)):
		return usual[n-2]
	case n > 0:
		if n -= 2 + uint64(len(usual)); n < uint64(len(u.names)) {
			return u.names[n]
		}
		return u.more[n-uint64(len(u.names))]
	}
	size := u.number()
	s := u.left[:size]
	u.left = u.left[size:]
	if u.n < len(u.names) {
		u.names[u.n] = s
	} else {
		u.more = append(u.more, s)
	}
	u.n++
	return s
}

func (u *unpacker) record(r *ha.Record) {
	r.Guest, r.Owner, r.Standby, r.Arbiter = ha.GuestID(u.name()), ha.NodeID(u.name()), ha.NodeID(u.name()), ha.NodeID(u.name())
	r.Level, r.Bound = ha.Level(u.name()), ha.NodeID(u.name())
	r.Epoch, r.Rev, r.Promised = u.number(), u.number(), u.number()
	flags := u.number()
	for i, set := range []*bool{&r.Run, &r.Outdated, &r.Gone, &r.Taking, &r.Handed, &r.Alone} {
		*set = flags&(1<<i) != 0
	}
}
