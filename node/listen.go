package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"vmctl/node/api"
	"vmctl/node/lease"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// listenAPI opens the unix socket. The database's lock has made sure that no
// other agent has this state directory; another one may have this socket.
func (n *Node) listenAPI() (net.Listener, error) {
	path := n.config.Socket()
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, api.Errorf(api.Conflict, "start the agent: another one answers at %s", path).
			WithHint("Give this one its own --runtime-dir.")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	return listener, nil
}

// listenError says what is wrong with --listen.
func listenError(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return api.Errorf(api.Conflict, "listen for the peer: %v", err).WithHint("Another program has the address: give this agent another --listen.")
	}
	return api.Errorf(api.Usage, "listen for the peer: %v", err).WithHint("Is --listen an address of this host?")
}

func (n *Node) peerServer() *peer.Server {
	return &peer.Server{
		Self: n.config.Name,
		Gate: peer.NodeGate{Identity: n.members.Identity, Member: n.members.member},
		Log:  n.log,
		Handlers: map[string]peer.Handler{
			peer.PurposeJoin:  n.serveJoin,
			lease.Purpose:     n.links.Serve,
			purposeRecords:    n.exchange.serve,
			purposeAPI:        n.serveAPI,
			purposeBoot:       n.guests.serveBoot,
			purposeTrial:      n.guests.serveTrial,
			purposeDisks:      n.guests.serveDisks,
			purposeCheckpoint: n.guests.serveCheckpoints,
		},
		Options: wire.Options{},
	}
}
