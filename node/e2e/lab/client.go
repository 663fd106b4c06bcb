package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Proof is what the guest says of itself: see packaging/testguest.
type Proof struct {
	Token   string `json:"token"`
	Counter uint64 `json:"counter"`
	Chain   string `json:"chain"`
	Boots   int    `json:"boots"` // runs since the disk was empty
	Broken  bool   `json:"broken"`
	Reason  string `json:"reason"`
}

// inSwitch runs f on a thread that is in the switch's namespace.
func (l *Lab) inSwitch(f func() error) error {
	return inNamespace(l.switchNS(), f)
}

// InNamespace runs f on a thread that is in a network namespace.
func InNamespace(name string, f func() error) error { return inNamespace(name, f) }

// SwitchNS is the network namespace in which clients of guests are.
func (l *Lab) SwitchNS() string { return l.switchNS() }

func inNamespace(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread stands for the whole process in /proc: it must
			// not move. While it is held here the next goroutine gets another.
			defer runtime.UnlockOSThread()
			done <- inNamespace(name, f)
			return
		}
		// Never unlocked: the thread ends with the goroutine.
		ns, err := netns.GetFromName(name)
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Ask asks the guest over HTTP, as a client on the switch.
func (l *Lab) Ask(ctx context.Context) (Proof, error) { return AskFrom(ctx, l.switchNS(), GuestAddr) }

// AskFrom asks a guest over HTTP, as a client in a network namespace.
func AskFrom(ctx context.Context, namespace, guest string) (proof Proof, err error) {
	err = askInto(ctx, namespace, guest, &proof)
	return proof, err
}

// AskClock asks the test guest what its clock shows.
func (l *Lab) AskClock(ctx context.Context) (time.Time, error) {
	var status struct {
		Clock time.Time `json:"clock"`
	}
	err := askInto(ctx, l.switchNS(), GuestAddr, &status)
	return status.Clock, err
}

// AskSizes asks the test guest how large its kernel sees its disks, in bytes.
func (l *Lab) AskSizes(ctx context.Context) (map[string]int64, error) {
	var status struct {
		Sizes map[string]int64 `json:"sizes"`
	}
	err := askInto(ctx, l.switchNS(), GuestAddr, &status)
	return status.Sizes, err
}

// GrowData has the test guest's file system take all of its first disk, and returns
// how many bytes it has then.
func (l *Lab) GrowData(ctx context.Context) (size int64, err error) {
	err = askInto(ctx, l.switchNS(), GuestAddr+"/grow", &size)
	return size, err
}

// askInto asks a guest, which may be followed by the path of a request.
func askInto(ctx context.Context, namespace, guest string, reply any) error {
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		failed := inNamespace(namespace, func() error {
			d := net.Dialer{Timeout: 300 * time.Millisecond}
			conn, err = d.DialContext(ctx, network, addr)
			return nil
		})
		if failed != nil {
			return nil, failed
		}
		return conn, err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+guest, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the guest answers %s", response.Status)
	}
	return json.NewDecoder(response.Body).Decode(reply)
}

// WaitAnswer asks until the guest answers.
func (l *Lab) WaitAnswer(ctx context.Context, bound time.Duration) (proof Proof, err error) {
	err = eventually(ctx, soon, bound, func() (err error) {
		proof, err = l.Ask(ctx)
		return err
	})
	return proof, err
}
