package testguest

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"vmctl/vm/qga"
)

// withAgent has the guest run Debian's agent from its next boot on, and returns the
// agent's socket.
func (m *machine) withAgent() (socket string) {
	socket = filepath.Join(m.dir, "qga")
	m.append, m.image.Initrd = m.append+" guest.agent=1", m.image.AgentInitrd
	m.more = []string{
		"-chardev", "socket,id=qga,path=" + socket + ",server=on,wait=off", "-device", "virtio-serial-pci",
		"-device", "virtserialport,nr=1,chardev=qga,name=org.qemu.guest_agent.0",
	}
	return socket
}

// agent holds the product's client against Debian's own agent: the guest's clock is
// what the client set, as the workload sees it.
func agent(t *testing.T, m *machine, socket string) {
	var client *qga.Client
	m.await("the guest agent", func() (err error) { client, err = qga.Dial(t.Context(), socket); return err })
	defer client.Close()
	if err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, away := range []time.Duration{-time.Hour, 0, 100 * 24 * time.Hour} {
		want := time.Now().Add(away)
		began := time.Now()
		err := client.SetTime(t.Context(), want)
		t.Logf("set to %v from now in %v: %v", away, time.Since(began), err)
		if err != nil {
			t.Error(err)
		}
		m.await("the clock", func() error {
			asked := time.Now()
			status, err := m.ask()
			if err != nil {
				return err
			}
			if behind := asked.Add(away).Sub(status.Clock); behind.Abs() > time.Second {
				return fmt.Errorf("the workload sees a clock that is %v behind", behind)
			}
			return nil
		})
		got, err := client.Time(t.Context())
		if off := time.Now().Add(away).Sub(got); err != nil || off.Abs() > time.Second {
			t.Errorf("the agent sees a clock that is %v behind, %v", off, err)
		}
	}
}
