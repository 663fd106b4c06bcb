package lab

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A QEMU that stood still and was killed uses processor time to end; one that was
// killed while it ran, or was let run before, has executed with it.
func TestEndedWhereItStood(t *testing.T) {
	for name, test := range map[string]struct {
		before []syscall.Signal
		want   bool
	}{
		"stood still": {[]syscall.Signal{syscall.SIGSTOP}, true},
		"ran":         {nil, false},
		"ran again":   {[]syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := spinning(t, t.TempDir(), "a", "-S")
			w.tell(t, "cont", nil, "running")
			pid := w.process(t.Context())
			for _, s := range test.before {
				signalled(t, w, pid, s)
			}
			before := w.sees(pid)
			if before.halt == ending || (before.halt == stopped) != test.want {
				t.Fatalf("halt %d before the end", before.halt)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for range 3 { // the first may still find it, the last does not
				now := w.sees(pid)
				if now.halt != ending || now.ended(before) != test.want {
					t.Fatalf("after the kill: %+v, ended %t", now, now.ended(before))
				}
				t.Logf("%v of processor time to end so far", time.Duration(now.ns-before.ns))
				if before.halt == running {
					break // the end is known from now on
				}
				before = now
				time.Sleep(sampleEvery)
			}
		})
	}
}

// signalled sends a signal and waits until the threads have obeyed.
func signalled(t *testing.T, w *watched, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
	want := map[syscall.Signal]halt{syscall.SIGSTOP: stopped, syscall.SIGCONT: running}[s]
	for end := time.Now().Add(10 * time.Second); w.sees(pid).halt != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v has no effect", s)
		}
	}
}

func TestHaltOf(t *testing.T) {
	stat := func(state, flags, pending string) []byte {
		fields := append([]string{"7", "(CPU 0/TCG) x)", state}, strings.Fields("1 7 7 0 -1 "+flags+strings.Repeat(" 0", 21)+" "+pending+strings.Repeat(" 0", 21))...)
		return []byte(strings.Join(fields, " "))
	}
	for name, test := range map[string]struct {
		stat []byte
		err  error
		want halt
	}{
		"runs":        {stat("R", "4194368", "0"), nil, running},
		"sleeps":      {stat("S", "4194368", "0"), nil, running},
		"stopped":     {stat("T", "4194368", "0"), nil, stopped},
		"to continue": {stat("T", "4194368", "131072"), nil, stopped},
		"kill comes":  {stat("R", "4194368", "256"), nil, ending},
		"exits":       {stat("R", "4194372", "0"), nil, ending},
		"is dead":     {stat("Z", "4194372", "0"), nil, ending},
		"gone":        {nil, os.ErrNotExist, ending},
		"cut short":   {[]byte("7 (x) T 1"), nil, running},
		"nothing":     {nil, nil, running},
	} {
		if got := haltOf(test.stat, test.err); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
