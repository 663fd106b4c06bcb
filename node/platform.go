package node

import (
	"context"

	"vmctl/vm"
	"vmctl/vm/guard"
	"vmctl/vm/qmp"
)

// platform joins vm to the guard and the monitor of this host. The connections
// it made last are left in the launch, for what vm itself does not do.
func (n *Node) platform(l *launch) vm.Platform {
	return vm.Platform{
		Launch: func(ctx context.Context, config guard.Launch) (vm.Guard, error) {
			client, err := guard.Start(ctx, n.exe, config, n.launcher)
			if err != nil {
				return nil, err
			}
			l.guard = client
			if l.started != nil {
				l.started(client)
			}
			return wardenOf(client), nil
		},
		Dial: func(ctx context.Context, socket string) (vm.Monitor, error) {
			client, err := qmp.Dial(ctx, socket, n.log)
			if err != nil {
				return nil, err
			}
			l.monitor = client
			return monitor{client}, nil
		},
		Network: vm.HostNetwork{},
		Log:     n.log,
	}
}

// launch holds the connections of one start or adoption.
type launch struct {
	guard   *guard.Client
	monitor *qmp.Client
	started func(*guard.Client) // called as soon as there is a guard
}

// warden is a guard's client as vm sees it.
type warden struct{ *guard.Client }

func wardenOf(c *guard.Client) vm.Guard { return warden{c} }

func (w warden) Gone() <-chan struct{} { return w.Done() }

func (w warden) Record() *guard.ExitRecord {
	if record, ok := w.Exit(); ok {
		return &record
	}
	return nil
}

// monitor is a QMP client as vm sees it.
type monitor struct{ *qmp.Client }

func (m monitor) Events() (<-chan vm.QEMUEvent, func()) {
	in, cancel := m.Client.Events()
	out := make(chan vm.QEMUEvent)
	stop := make(chan struct{})
	go func() { // ends with in, which cancel or the end of the connection closes
		defer close(out)
		for event := range in {
			select {
			case out <- vm.QEMUEvent{Name: event.Name, Data: event.Data, Time: event.Time}:
			case <-stop:
			}
		}
	}()
	return out, func() { cancel(); close(stop) }
}
