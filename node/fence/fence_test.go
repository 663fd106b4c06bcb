package fence

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the tests run together: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// head is how the agents of these tests begin: they note every call.
const head = `#!/bin/sh
action= password=
input=$(cat)
for line in $(printf "%s\n" "$input" | grep '^[a-z_]*='); do
  case $line in action=*) action=${line#*=};; password=*) password=${line#*=};; esac
done
here=$(dirname "$0")
echo "$action" >>"$here/calls"
printf "%s\n" "$input" >>"$here/input"
echo "args:$*" >>"$here/arguments"; env >>"$here/environment"
if [ "$action" = metadata ]; then
cat <<X
<?xml version="1.0" ?>
<resource-agent name="fence_test"><parameters><parameter name="ip"/><parameter name="plug"/><parameter name="password"/></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/></actions></resource-agent>
X
exit 0
fi
status() { echo "Status: $1"; case $1 in OFF) exit 2;; ON) exit 0;; esac; exit 1; }
`

// script writes an agent: body is run for off and status.
func script(t *testing.T, body string) Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	write(t, path, head+body, 0o755)
	return Device{Agent: path, Timeout: 10 * time.Second}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	// A child forked meanwhile would hold the file open for writing.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// left is what an agent of script left in a file beside it.
func left(t *testing.T, d Device, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(d.Agent), name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func calls(t *testing.T, d Device) string {
	return strings.Join(strings.Fields(left(t, d, "calls")), " ")
}

// watched is a log that calls enough when it has said something so often: how long
// an agent takes is the machine's affair.
func watched(to io.Writer, key, value string, times int, enough func()) *slog.Logger {
	var mu sync.Mutex
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		mu.Lock()
		defer mu.Unlock()
		if a.Key == key && a.Value.String() == value {
			if times--; times == 0 {
				enough()
			}
		}
		return a
	}}))
}

func TestOff(t *testing.T) {
	for _, test := range []struct {
		name, body, calls string
		timeout           time.Duration
		stop              string // given up when the agent has answered to this twice
		want              error
		says              string
	}{
		{name: "off", body: `case $action in off) exit 0;; status) status OFF;; esac`, calls: "metadata off status"},
		{name: "a liar", body: `case $action in off) echo "Success: Powered OFF";; status) status ON;; esac`, stop: "status", want: ErrNotConfirmed, says: "is on"},
		{name: "a liar, until the time is up", body: `case $action in off) echo "Success: Powered OFF";; status) status ON;; esac`, timeout: 4 * time.Second, want: ErrNotConfirmed, says: "the fence timeout is over"},
		{name: "status unknown, then on, then off", body: `n=$(grep -c status "$here/calls"); case $action in off) exit 0;; status) [ $n = 1 ] && exit 1; [ $n = 2 ] && status ON; status OFF;; esac`,
			calls: "metadata off status status status"},
		{name: "off fails once", body: `case $action in off) [ $(grep -c off "$here/calls") = 2 ];; status) status OFF;; esac`, calls: "metadata off off status"},
		{name: "off always fails, status says off", body: `case $action in off) echo "no route to the board" >&2; exit 1;; status) status OFF;; esac`, stop: "off", want: ErrAgent, says: "no route to the board"},
		{name: "off ends with 2", body: `case $action in off) exit 2;; status) status OFF;; esac`, stop: "off", want: ErrAgent, says: "exit code 2"},
		{name: "status crashes with the code of off", body: `case $action in off) exit 0;; status) echo "syntax error" >&2; exit 2;; esac`, stop: "status", want: ErrNotConfirmed, says: "no clear answer (exit code 2: syntax error)"},
		{name: "status says both", body: `case $action in off) exit 0;; status) echo Status: ON; status OFF;; esac`, stop: "status", want: ErrNotConfirmed, says: "no clear answer"},
		{name: "status says off with the code of on", body: `case $action in off) exit 0;; status) echo Status: OFF; exit 0;; esac`, stop: "status", want: ErrNotConfirmed},
		{name: "status says off on standard error", body: `case $action in off) exit 0;; status) echo Status: OFF >&2; exit 2;; esac`, stop: "status", want: ErrNotConfirmed},
		{name: "status says off in endless words", body: `case $action in off) exit 0;; status) echo Status: OFF; head -c 300000 /dev/zero; exit 2;; esac`, stop: "status", want: ErrNotConfirmed},
		{name: "killed by a signal", body: `case $action in off) kill -SEGV $$;; status) status OFF;; esac`, stop: "off", want: ErrAgent, says: "segmentation fault"},
		{name: "off hangs once", body: `case $action in off) [ $(grep -c off "$here/calls") = 2 ] || sleep 100;; status) status OFF;; esac`, timeout: 8 * time.Second, calls: "metadata off off status"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := script(t, test.body)
			if test.timeout > 0 {
				d.Timeout = test.timeout
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			began := time.Now()
			err := d.Off(ctx, watched(io.Discard, "action", test.stop, 2, cancel))
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.want != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v does not say %q", err, test.says)
			}
			if got := calls(t, d); test.calls != "" && got != test.calls {
				t.Errorf("calls %q, want %q", got, test.calls)
			}
			if took := time.Since(began); took > d.Timeout+5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestHang: nothing of an agent's group is left when its time is up, though it
// ignores SIGTERM and has children that hold its outputs.
func TestHang(t *testing.T) {
	t.Parallel()
	d := script(t, `trap "" TERM; sleep 1000 & echo $! >"$here/child"; echo $$ >"$here/self"; wait; sleep 1000`)
	for d.Timeout = 2 * time.Second; ; d.Timeout *= 2 {
		err := d.Off(t.Context(), nil)
		if !errors.Is(err, ErrAgent) || !strings.Contains(err.Error(), "in time") {
			t.Errorf("got %v", err)
		}
		if left(t, d, "self") != "" || d.Timeout > time.Minute {
			break
		} // else it had no time to begin, which shows nothing
	}
	for _, file := range []string{"child", "self"} {
		pid, err := strconv.Atoi(strings.TrimSpace(left(t, d, file)))
		if err != nil {
			t.Fatal(err)
		}
		gone(t, pid)
	}
}

// TestLeftovers: a child that outlives its agent is ended with it, and does not
// hold the answer up.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	d := script(t, `sleep 1000 & echo $! >"$here/child"; case $action in off) exit 0;; status) status OFF;; esac`)
	d.Timeout = 2 * time.Minute // half of it for one call
	began := time.Now()
	if err := d.Off(t.Context(), nil); err != nil || time.Since(began) > d.Timeout/4 {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(left(t, d, "child")))
	if err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
}

// gone waits until a process is no more, or a zombie that its new parent has
// not yet noticed.
func gone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives: %s", pid, stat)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestCancel(t *testing.T) {
	t.Run("in the delay nothing is sent", func(t *testing.T) {
		d := script(t, `case $action in off) exit 0;; status) status OFF;; esac`)
		d.Delay = time.Minute
		ctx, cancel := context.WithCancelCause(t.Context())
		log := watched(io.Discard, slog.MessageKey, "waiting before fencing", 1, func() { cancel(errors.New("the peer is back")) })
		if err := d.Off(ctx, log); !errors.Is(err, ErrAgent) || !strings.Contains(err.Error(), "the peer is back") {
			t.Errorf("got %v", err)
		}
		if got := calls(t, d); got != "metadata" {
			t.Errorf("calls %q", got)
		}
	})
	t.Run("in a call", func(t *testing.T) {
		d := script(t, `exec sleep 1000`)
		d.Timeout = 2 * time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for !strings.Contains(left(t, d, "calls"), "off") && ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			cancel()
		}()
		began := time.Now()
		if err := d.Off(ctx, nil); !errors.Is(err, context.Canceled) || time.Since(began) > d.Timeout/4 {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		cancel()
	})
}

func TestDelay(t *testing.T) {
	t.Parallel()
	d := script(t, `date +%s%N >"$here/$action"; case $action in off) exit 0;; status) status OFF;; esac`)
	d.Delay = time.Second
	began := time.Now()
	if err := d.Off(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	shot, err := strconv.ParseInt(strings.TrimSpace(left(t, d, "off")), 10, 64)
	if err != nil || time.Unix(0, shot).Sub(began) < d.Delay {
		t.Errorf("shot %v after the beginning (%v)", time.Unix(0, shot).Sub(began), err)
	}
}

// TestSecrets: a secret reaches the agent on its standard input alone, and
// nobody else though the agent prints it in every way.
func TestSecrets(t *testing.T) {
	t.Parallel()
	const secret = `p@ss'w\rd=100%`
	d := script(t, `printf "Ignoring unknown option '%s'\n" "$(printf "%s\n" "$input" | grep password)" >&2; printf %s "$password" | base64 >&2
case $action in off) printf "%s\n" "login as root:$password failed"; exit 1;; status) status ON;; esac`)
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, secret+"\n", 0o600)
	d.SecretFiles, d.Options = map[string]string{"password": file}, map[string]string{"plug": "3"}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := d.Off(ctx, watched(&log, "action", "off", 2, cancel))
	if !errors.Is(err, ErrAgent) {
		t.Errorf("got %v", err)
	}
	if _, err := d.Verify(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Error(err)
	}
	if !strings.Contains(left(t, d, "input"), "password="+secret+"\n") || !strings.Contains(left(t, d, "input"), "plug=3\n") {
		t.Errorf("the agent did not get its options: %q", left(t, d, "input"))
	}
	for where, text := range map[string]string{
		"log": log.String(), "error": err.Error(), "arguments": left(t, d, "arguments"), "environment": left(t, d, "environment"),
	} {
		for _, part := range []string{`p@ss`, "cEBzcyd3XHJk", "100%"} {
			if strings.Contains(text, part) {
				t.Errorf("%s has the secret: %s", where, text)
			}
		}
	}
	if !strings.Contains(log.String(), "Ignoring unknown option 'password=***'") {
		t.Errorf("the log lacks what the agent said: %s", log.String())
	}
	if strings.Contains(left(t, d, "environment"), "PCMK") || strings.Contains(left(t, d, "environment"), "GOROOT") {
		t.Errorf("the agent got this process's environment: %s", left(t, d, "environment"))
	}
}

func TestRedactAtACut(t *testing.T) {
	r := newRedactor([]string{"topsecret"})
	for n := range len("a topsecret b topsecret") + 1 {
		if got := r.clean("a topsecret b topsecret"[:n], true); strings.Contains(got, "t") {
			t.Errorf("cut at %d: %q", n, got)
		}
	}
	if got := r.clean("a topsecret b topsecret", false); got != "a *** b ***" {
		t.Errorf("got %q", got)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		body string
		want Power
		says string
	}{
		{body: `status ON`, want: On}, {body: `exit 0`, want: On}, {body: `status OFF`, want: Off},
		{body: `echo "Unable to connect/login to fencing device" >&2; exit 1`, says: "Unable to connect"}, {body: `exit 2`, says: "no clear answer"},
	} {
		d := script(t, test.body)
		got, err := d.Verify(t.Context(), nil)
		if got != test.want || (err != nil) != (test.want == Unknown) || err != nil && (!errors.Is(err, ErrAgent) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %v, %v", test.body, got, err)
		}
		if got := calls(t, d); got != "metadata status" {
			t.Errorf("%s: calls %q", test.body, got)
		}
	}
}
