package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Addresses of the lab's network.
const (
	SwitchAddr = "10.77.0.1"
	GuestAddr  = "10.77.0.50"
	network    = "/24"
	recordPort = 9000

	witnessPort = 7441
)

var hostAddrs = map[string]string{"a": "10.77.0.11", "b": "10.77.0.12", "w": "10.77.0.13"}

// Lab is two hosts, a, b, and a witness, w, on one switch.
type Lab struct {
	ID      string
	Dir     string // everything on disk
	Binary  string // vmctl
	A, B, W *Host
	Log     func(format string, args ...any)

	janitor *exec.Cmd
	alive   *os.File // its end closes when this process dies
}

// New lays the network. Binary is the vmctl to run.
func New(ctx context.Context, binary string, log func(string, ...any)) (_ *Lab, err error) {
	id := make([]byte, 3)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	l := &Lab{ID: "vl" + hex.EncodeToString(id), Binary: binary, Log: log}
	if l.Dir, err = os.MkdirTemp("", l.ID+"-"); err != nil {
		return nil, err
	}
	if err := l.startJanitor(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	l.A, l.B, l.W = l.host("a"), l.host("b"), l.host("w")
	if err := l.wire(ctx); err != nil {
		return nil, fmt.Errorf("lay the lab's network: %w", err)
	}
	return l, nil
}

func (l *Lab) host(name string) *Host {
	return &Host{
		lab: l, Name: name, Addr: hostAddrs[name], ns: l.ID + name,
		dir: filepath.Join(l.Dir, name), ram: filepath.Join("/dev/shm", l.ID+name),
	}
}

func (l *Lab) switchNS() string { return l.ID + "s" }

func (l *Lab) wire(ctx context.Context) error {
	s := l.switchNS()
	script := []string{
		"ip netns add " + s,
		"ip -n " + s + " link set lo up",
		"ip -n " + s + " link add sw0 type bridge stp_state 0 forward_delay 0",
		"ip -n " + s + " addr add " + SwitchAddr + network + " dev sw0",
		"ip -n " + s + " link set sw0 up",
	}
	for _, h := range l.hosts() {
		script = append(script,
			"ip netns add "+h.ns,
			"ip -n "+h.ns+" link set lo up",
			"ip -n "+s+" link add p"+h.Name+" type veth peer name eth0 netns "+h.ns,
			"ip -n "+s+" link set p"+h.Name+" master sw0 up",
			"ip -n "+h.ns+" link add br0 type bridge stp_state 0 forward_delay 0",
			"ip -n "+h.ns+" link set eth0 master br0 up",
			"ip -n "+h.ns+" addr add "+h.Addr+network+" dev br0",
			"ip -n "+h.ns+" link set br0 up",
		)
	}
	return runScript(ctx, script)
}

func (l *Lab) hosts() []*Host { return []*Host{l.A, l.B, l.W} }

// startJanitor starts a process that cleans up when this one is gone, however
// it ended.
func (l *Lab) startJanitor() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	script := `cat >/dev/null
i=0 # a process that is killed may have just started another
while [ $i -lt 100 ]; do
  pids=$(for n in s a b w; do ip netns pids "$1$n" 2>/dev/null; done)
  [ -n "$pids" ] || break
  kill -9 $pids 2>/dev/null
  sleep 0.1
  i=$((i + 1))
done
for n in s a b w; do ip netns del "$1$n" 2>/dev/null; done
for n in a/s b/s w; do umount -l "$2/$n" 2>/dev/null; done
for n in a b; do umount -l "/dev/shm/$1$n" 2>/dev/null; done
for n in a b; do # hosts that are containers
  rmdir "/run/systemd/nspawn/propagate/$1$n" 2>/dev/null
  for c in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    [ ! -d "$c/$1$n" ] || find "$c/$1$n" -depth -type d -exec rmdir {} \;
  done
done
rm -rf "$2" "/dev/shm/$1a" "/dev/shm/$1b" "/dev/shm/$1w"`
	l.janitor = exec.Command("setsid", "sh", "-c", script, "janitor", l.ID, l.Dir)
	l.janitor.Stdin = r
	if err := l.janitor.Start(); err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	l.alive = w
	return r.Close()
}

// Close removes the lab and everything that runs in it.
func (l *Lab) Close() error {
	if l.alive == nil {
		return nil
	}
	err := l.alive.Close()
	l.alive = nil
	return errors.Join(err, l.janitor.Wait())
}

// Form starts witness and agents and makes them one cluster.
func (l *Lab) Form(ctx context.Context) error {
	for _, h := range l.hosts() {
		if err := h.PowerOn(ctx); err != nil {
			return err
		}
	}
	if _, err := l.A.CLI(ctx, "cluster", "init", "lab"); err != nil {
		return err
	}
	token, err := l.A.CLI(ctx, "cluster", "token")
	if err != nil {
		return err
	}
	if _, err := l.B.CLI(ctx, "cluster", "join", l.A.Addr+":7440", "--token", strings.TrimSpace(token)); err != nil {
		return err
	}
	return l.AddWitness(ctx)
}

// AddWitness makes w the cluster's witness.
func (l *Lab) AddWitness(ctx context.Context) error {
	token, err := l.W.CLI(ctx, "witness", "token", "--state-dir", l.W.dir)
	if err != nil {
		return err
	}
	_, err = l.A.CLI(ctx, "witness", "add", fmt.Sprintf("%s:%d", l.W.Addr, witnessPort), "--token", strings.TrimSpace(token))
	return err
}

// Cut drops everything between two hosts, both ways; Heal lets it through.
func (l *Lab) Cut(ctx context.Context, x, y *Host) error {
	return errors.Join(x.drop(ctx, y), y.drop(ctx, x))
}

// Heal ends all cuts, slow links and full disks.
func (l *Lab) Heal(ctx context.Context) error {
	var failed error
	for _, h := range l.hosts() {
		failed = errors.Join(failed, h.inside(ctx, "nft", "flush", "ruleset"), h.link(ctx, "up"), h.Fast(ctx), h.Free())
	}
	return failed
}

// Eventually calls test until it returns nil or the bound is over, and returns
// its last error.
func Eventually(ctx context.Context, bound time.Duration, test func() error) error {
	return eventually(ctx, 100*time.Millisecond, bound, test)
}

// soon is how often it is looked for what is timed, and asks no agent.
const soon = 10 * time.Millisecond

func eventually(ctx context.Context, every, bound time.Duration, test func() error) error {
	deadline := time.Now().Add(bound)
	for {
		err := test()
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(every)
	}
}

func runScript(ctx context.Context, lines []string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}
