package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A sniffer of one port never hears another, not even before it is ready: records
// would seem to come from a host that has no guest.
func TestSnifferHearsItsPort(t *testing.T) {
	ns := fmt.Sprintf("vl-sniff-%d", os.Getpid())
	t.Cleanup(func() { _ = runScript(context.Background(), []string{"ip netns del " + ns}) })
	if err := runScript(t.Context(), []string{"ip netns add " + ns, "ip -n " + ns + " link set lo up", "ip -n " + ns + " link add quiet type bridge", "ip -n " + ns + " link set quiet up"}); err != nil {
		t.Fatal(err)
	}
	stop, noise := make(chan struct{}), make(chan error, 1)
	go func() {
		noise <- inNamespace(ns, func() error {
			c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", recordPort))
			if err != nil {
				return err
			}
			defer c.Close()
			for {
				select {
				case <-stop:
					return nil
				default:
					_, _ = c.Write([]byte("{}")) // nobody listens there
				}
			}
		})
	}()
	err := inNamespace(ns, func() error {
		quiet, err := linkIndex("quiet")
		if err != nil {
			return err
		}
		loud, err := linkIndex("lo")
		if err != nil {
			return err
		}
		for range 100 {
			if n, err := hears(quiet, unix.MSG_DONTWAIT); err == nil {
				return fmt.Errorf("%d bytes of another port were heard", n)
			} else if !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
		_, err = hears(loud, 0)
		return err
	})
	close(stop)
	if err := errors.Join(err, <-noise); err != nil {
		t.Error(err)
	}
}

func hears(index, flags int) (int, error) {
	fd, err := sniffer(index)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, _, err := unix.Recvfrom(fd, make([]byte, 4096), flags)
	return n, err
}
