package unit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"vmctl/vm/guard"
)

// fakeManager is systemd as far as Launch sees it.
type fakeManager struct {
	answers []error // to StartTransientUnit, one after the other; nil starts a job
	result  string  // of the job; empty: it never ends
	calls   []string
	closed  bool
	unit    []dbus.Property
}

func (f *fakeManager) StartTransientUnitContext(_ context.Context, name, mode string, p []dbus.Property, result chan<- string) (int, error) {
	f.calls = append(f.calls, "start "+name+" "+mode)
	f.unit = p
	err := f.answers[0]
	f.answers = f.answers[1:]
	if err == nil && f.result != "" {
		result <- f.result
	}
	return 1, err
}

func (f *fakeManager) StopUnitContext(_ context.Context, name, mode string, _ chan<- string) (int, error) {
	f.calls = append(f.calls, "stop "+name+" "+mode)
	return 1, nil
}

func (f *fakeManager) Close() { f.closed = true }

var launch = guard.Launch{
	Guest:   guard.Guest{Name: "web", UUID: "8f2e7f70-0000-4000-8000-000000000001"},
	LogPath: "/log/qemu.log", StopTimeout: 30 * time.Second,
}

func TestLaunch(t *testing.T) {
	exists := godbus.Error{Name: "org.freedesktop.systemd1.UnitExists"}
	const start, stop = "start vmctl-guest-8f2e7f70.service fail", "stop vmctl-guest-8f2e7f70.service replace"
	for _, c := range []struct {
		name    string
		answers []error
		result  string
		calls   []string
		says    string // of the error; empty: none
	}{
		{"started", []error{nil}, "done", []string{start}, ""},
		{"guard failed", []error{nil}, "failed", []string{start}, "/log/qemu.log"},
		{"old unit goes", []error{exists, exists, nil}, "done", []string{start, start, start}, ""},
		{"old unit stays", slices.Repeat([]error{exists}, 1000), "done", nil, "UnitExists"},
		{"refused", []error{errors.New("no such property")}, "", []string{start}, "no such property"},
		{"never ready", []error{nil}, "", []string{start, stop}, "deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeManager{answers: c.answers, result: c.result}
				l := &Launcher{dial: func(context.Context) (manager, error) { return f, nil }}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := l.Launch(ctx, "/usr/bin/vmctl", "/run/g.json", launch)
				if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want %q", err, c.says)
				}
				if c.calls != nil && !slices.Equal(f.calls, c.calls) {
					t.Errorf("calls %q, want %q", f.calls, c.calls)
				}
				if !f.closed {
					t.Error("the connection was left open")
				}
			})
		})
	}
}

func TestProperties(t *testing.T) {
	got := map[string]string{}
	for _, p := range properties("/usr/bin/vmctl", "/run/g.json", &launch) {
		got[p.Name] = fmt.Sprint(p.Value.Value())
	}
	for name, want := range map[string]string{
		"Type": "notify", "KillMode": "mixed", "Delegate": "false", "OOMPolicy": "continue",
		"TimeoutStopUSec": "45000000", "StandardErrorFileToAppend": "/log/qemu.log",
		"CollectMode": "inactive-or-failed",
	} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	if !strings.Contains(got["ExecStart"], `[/usr/bin/vmctl guard /run/g.json]`) {
		t.Errorf("ExecStart is %s", got["ExecStart"])
	}
}
