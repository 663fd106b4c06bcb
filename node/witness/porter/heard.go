package porter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmctl/node/wire"
	"vmctl/node/wire/record"
)

// longest is the most bytes of a name: what a node may be called.
const longest = 128

// heard does what a packet of the porter asks for. A descriptor that is taken is
// gone from the packet.
func (k *Keeper) heard(l *line, p *packet) error {
	if (p.kind == kindLink) != (len(p.fds) == 1) || len(p.fds) > 1 {
		return fmt.Errorf("a packet of kind %d with %d descriptors: %w", p.kind, len(p.fds), ErrNonsense)
	}
	switch p.kind {
	case kindAlive:
		return nil
	case kindAuthority:
		var ask authority
		if err := wire.Decode(p.body, &ask); err != nil {
			return err
		}
		cert, err := k.House.Authority(ask.Cluster)
		return l.reply(ask.ID, cert, err)
	case kindEnrol:
		var ask enrolment
		if err := wire.Decode(p.body, &ask); err != nil {
			return err
		}
		return l.reply(ask.ID, nil, k.House.Enrol(ask.Request))
	case kindLink:
		return k.admit(p)
	}
	return fmt.Errorf("a packet of kind %d: %w", p.kind, ErrNonsense)
}

func (l *line) reply(id uint64, data []byte, err error) error {
	a := answer{ID: id, Data: data}
	refused := new(wire.Refused)
	switch {
	case errors.As(err, &refused):
		a.Code, a.Text = refused.Code, refused.Message
	case err != nil:
		a.Text = err.Error()
	}
	return l.send(kindAnswer, a)
}

// admit gives a link to the witness, if it is one.
func (k *Keeper) admit(p *packet) error {
	var said link
	if err := wire.Decode(p.body, &said); err != nil {
		return err
	}
	l := Link{FD: p.fds[0], Cluster: said.Cluster, Node: said.Node, Version: said.Version}
	if n := max(len(l.Cluster), len(l.Node)); n > longest || l.Cluster == "" || l.Node == "" {
		return fmt.Errorf("a link of node %.20q of cluster %.40q: %w", l.Node, l.Cluster, ErrNonsense)
	}
	if l.Version < wire.MinVersion || l.Version > wire.Version {
		return fmt.Errorf("a link of wire version %d: %w", l.Version, ErrNonsense)
	}
	err := socket(l.FD)
	if err == nil {
		l.In, err = record.Unpack(said.In)
	}
	if err == nil {
		l.Out, err = record.Unpack(said.Out)
	}
	if err != nil {
		return fmt.Errorf("a link of node %q: %w (%w)", l.Node, ErrNonsense, err)
	}
	p.fds = nil
	k.House.Take(l)
	return nil
}

// socket makes sure that a descriptor is a TCP connection that is never waited
// for.
func socket(fd int) error {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && protocol != unix.IPPROTO_TCP {
		err = fmt.Errorf("protocol %d", protocol)
	}
	if err == nil {
		_, err = unix.Getpeername(fd)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return fmt.Errorf("descriptor %d is no TCP connection: %w", fd, err)
	}
	return nil
}
