package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"golang.org/x/sys/unix"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/witness/porter"
	"vmctl/store"
)

// Config is how a witness was started.
type Config struct {
	Name     string
	StateDir string
	Listen   string
	Lean     bool           // the process is nothing but this witness: give memory back
	Porter   porter.Command // runs porter.Main
	Log      *slog.Logger
}

func (c *Config) check() error {
	if c.StateDir == "" {
		return api.Errorf(api.Usage, "start the witness: --state-dir is empty")
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		return api.Errorf(api.Usage, "start the witness: --listen %q is not ADDR:PORT", c.Listen)
	}
	if c.Name == "" || len(c.Name) > maxName || strings.ContainsFunc(c.Name, unicode.IsControl) {
		return api.Errorf(api.Usage, "start the witness: --name %q is not a name of 1 to %d characters", c.Name, maxName)
	}
	if c.Porter.Path == "" {
		return errors.New("start the witness: no program for its handshakes")
	}
	return nil
}

// maxName bounds the names of witnesses and clusters, which people see.
const maxName = 63

// selfRecord is the witness's own identity.
type selfRecord struct {
	ID   string `msgpack:"id"`
	Name string `msgpack:"name"`
	Cert []byte `msgpack:"cert"`
	Key  []byte `msgpack:"key"`
	Boot uint64 `msgpack:"boot"`
}

// clusterRecord is a cluster that enrolled.
type clusterRecord struct {
	Name   string `msgpack:"name"`
	CACert []byte `msgpack:"ca_cert"`
}

var (
	selfTable    = store.NewTable[selfRecord]("witness")
	clusterTable = store.NewTable[clusterRecord]("clusters")
	leaseTable   = store.NewTable[ha.Record]("leases") // key: cluster/guest
)

const only = "this"

// Witness serves enrolled clusters.
type Witness struct {
	config Config
	db     *store.DB
	self   selfRecord
	ready  func(addr string)
	loop   *loop

	mu       sync.Mutex
	clusters map[string]*cluster
}

// Run serves until ctx ends. ready is called with the address listened on.
func Run(ctx context.Context, config Config, ready func(addr string)) (err error) {
	if err := config.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(config.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	db, err := store.Open(filepath.Join(config.StateDir, "witness.db"), store.Options{Log: config.Log})
	if errors.Is(err, store.ErrLocked) {
		return api.Errorf(api.Conflict, "start the witness: %v", err).WithHint("Another witness has this --state-dir.")
	}
	if err != nil {
		return fmt.Errorf("start the witness: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	w := &Witness{config: config, db: db, clusters: map[string]*cluster{}, ready: ready}
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.ensureToken(); err != nil {
		return err
	}
	listener, err := bind(config.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return api.Errorf(api.Conflict, "listen for clusters: %v", err).WithHint("Give this witness another --listen.")
	}
	if err != nil {
		return api.Errorf(api.Usage, "listen for clusters: %v", err).WithHint("Is --listen an address of this machine?")
	}
	return w.serve(ctx, listener)
}

func bind(addr string) (*net.TCPListener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// serve runs the loop, the writer and the door's keeper; each waits for who
// uses it.
func (w *Witness) serve(ctx context.Context, listener *net.TCPListener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	writer := newWriter(w.db)
	loop, err := newLoop(writer, w.config.Log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	writer.ring = loop.ring
	if w.config.Lean {
		loop.tidy = tidy
	}
	w.loop = loop
	keeper := &porter.Keeper{
		Command: w.config.Porter, Name: w.self.Name, Cert: w.self.Cert, Key: w.self.Key, House: w, Log: w.config.Log,
	}
	var looping, writing sync.WaitGroup
	var failed error
	writing.Go(writer.run)
	looping.Go(func() { failed = loop.run(ctx); cancel() })
	w.ready(listener.Addr().String())
	err = keeper.Run(ctx, listener)
	cancel()
	looping.Wait()
	close(writer.batches)
	writing.Wait()
	return errors.Join(failed, err, loop.close())
}

// Take implements porter.House: it gives a node's link to the loop.
func (w *Witness) Take(l porter.Link) {
	c := w.find(l.Cluster)
	if c == nil {
		_ = unix.Close(l.FD)
		w.config.Log.Info("connection refused", "cluster", l.Cluster, "node", l.Node, "error", errUnknown)
		return
	}
	w.loop.add(newLink(l, c))
}

// begin loads or makes the identity, counts this start, and opens the clusters.
func (w *Witness) begin() error {
	err := w.db.Update(func(tx *store.Tx) error {
		row, err := selfTable.Get(tx, only)
		switch {
		case errors.Is(err, store.ErrNotFound):
			if row.Value, err = newSelf(w.config.Name); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		w.self = row.Value
		w.self.Boot++
		_, err = selfTable.Put(tx, only, w.self)
		return err
	})
	if err != nil {
		return fmt.Errorf("load the witness's identity: %w", err)
	}
	var enrolled []store.Row[clusterRecord]
	err = w.db.View(func(tx *store.Tx) (err error) {
		enrolled, err = clusterTable.List(tx, "")
		return err
	})
	if err != nil {
		return fmt.Errorf("load the clusters: %w", err)
	}
	for _, row := range enrolled {
		if err := w.open(row.Key, row.Value.Name); err != nil {
			return err
		}
	}
	return nil
}

func newSelf(name string) (selfRecord, error) {
	cert, key, err := peer.NewWitnessPair(name)
	if err != nil {
		return selfRecord{}, err
	}
	return selfRecord{ID: peer.WitnessID(peer.Fingerprint(cert)), Name: name, Cert: cert, Key: key}, nil
}

var errUnknown = errors.New("no such cluster is enrolled here")

// Authority implements porter.House.
func (w *Witness) Authority(id string) ([]byte, error) {
	record, err := w.stored(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("this witness does not serve cluster %s; enrol it with `vmctl witness add`", id)
	}
	return record.CACert, err
}

func (w *Witness) find(id string) *cluster {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clusters[id]
}
