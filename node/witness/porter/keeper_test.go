package porter

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/node/peer"
	"vmctl/node/wire"
)

// house notes what the keeper asks of it.
type house struct {
	mu    sync.Mutex
	asked []string
	taken []Link
}

func (h *house) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, what)
}

func (h *house) Authority(cluster string) ([]byte, error) {
	h.note("authority of " + cluster)
	if cluster != "shop" {
		return nil, errors.New("no such cluster")
	}
	return []byte("cert"), nil
}

func (h *house) Enrol(r peer.EnrolRequest) error {
	h.note("enrol " + r.Cluster)
	return &wire.Refused{Code: "unsafe", Message: "not with this token"}
}

func (h *house) Take(l Link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken = append(h.taken, l)
}

// ends makes a line within this process.
func ends(t *testing.T) (a, b *line) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, to := range []**line{&a, &b} {
		if *to, err = newLine(pair[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*to).Close() })
	}
	return a, b
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// connection is a TCP connection, as a descriptor.
func connection(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	other, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return int(file.Fd())
}

func keys() []byte {
	data := make([]byte, 54)
	data[0], data[1] = 0x13, 0x01 // TLS_AES_128_GCM_SHA256
	return data
}

func good() link {
	return link{Cluster: "shop", Node: "a", Version: wire.Version, In: keys(), Out: keys()}
}

// Whatever a porter says that it could not mean ends it: nothing of that counts,
// and no descriptor of it stays.
func TestNonsenseEndsThePorter(t *testing.T) {
	tcp := connection(t)
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	local, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(local[0])
	defer unix.Close(local[1])
	changed := func(change func(*link)) link {
		l := good()
		change(&l)
		return l
	}
	for name, say := range map[string]func(*line) error{
		"a kind nobody knows":  func(l *line) error { return l.send(99, nil) },
		"a kind of the keeper": func(l *line) error { return l.send(kindAnswer, answer{ID: 1}) },
		"no kind":              func(l *line) error { _, err := l.Write([]byte{}); return err },
		"too long": func(l *line) error {
			_, err := l.Write(append([]byte{kindAlive}, make([]byte, maxPacket+1)...))
			return err
		},
		"a body that is none":     func(l *line) error { _, err := l.Write([]byte{kindAuthority, 0xc1}); return err },
		"no body":                 func(l *line) error { _, err := l.Write([]byte{kindEnrol}); return err },
		"a link without a socket": func(l *line) error { return l.send(kindLink, good()) },
		"a link with two":         func(l *line) error { return l.send(kindLink, good(), tcp, tcp) },
		"a link with a dozen": func(l *line) error {
			return l.send(kindLink, good(), tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp, tcp)
		},
		"a socket with a sign of life": func(l *line) error { return l.send(kindAlive, nil, tcp) },
		"a link on a pipe":             func(l *line) error { return l.send(kindLink, good(), pipe[0]) },
		"a link within this machine":   func(l *line) error { return l.send(kindLink, good(), local[0]) },
		"a link on a socket of nobody": func(l *line) error { return l.send(kindLink, good(), listener) },
		"a link of no cluster":         func(l *line) error { return l.send(kindLink, changed(func(l *link) { l.Cluster = "" }), tcp) },
		"a link of no node":            func(l *line) error { return l.send(kindLink, changed(func(l *link) { l.Node = "" }), tcp) },
		"a link of an endless node": func(l *line) error {
			return l.send(kindLink, changed(func(l *link) { l.Node = strings.Repeat("n", longest+1) }), tcp)
		},
		"a wire version to come":        func(l *line) error { return l.send(kindLink, changed(func(l *link) { l.Version++ }), tcp) },
		"a wire version nobody speaks":  func(l *line) error { return l.send(kindLink, changed(func(l *link) { l.Version = 0 }), tcp) },
		"short keys":                    func(l *line) error { return l.send(kindLink, changed(func(l *link) { l.In = l.In[1:] }), tcp) },
		"keys of no cipher":             func(l *line) error { return l.send(kindLink, changed(func(l *link) { l.Out[1] = 9 }), tcp) },
		"no keys":                       func(l *line) error { return l.send(kindLink, changed(func(l *link) { l.Out = nil }), tcp) },
		"nothing, and then it hangs up": func(l *line) error { return l.Close() },
	} {
		h := &house{}
		keeper := &Keeper{House: h, Log: slog.New(slog.DiscardHandler)}
		ours, theirs := ends(t)
		before := openFiles(t)
		if err := theirs.send(kindAlive, nil); err != nil {
			t.Fatal(err)
		}
		if err := say(theirs); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err := keeper.listen(ours)
		ours.Close()
		theirs.Close()
		if !errors.Is(err, ErrNonsense) && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		if len(h.asked)+len(h.taken) > 0 {
			t.Errorf("%s: it counts: %v, %d links", name, h.asked, len(h.taken))
		}
		if n := openFiles(t); n != before-2 {
			t.Errorf("%s: %d open files, %d before", name, n, before-2)
		}
	}
}

func TestWhatThePorterAsks(t *testing.T) {
	h := &house{}
	keeper := &Keeper{House: h, Log: slog.New(slog.DiscardHandler)}
	ours, theirs := ends(t)
	ended := make(chan error, 1)
	go func() { ended <- keeper.listen(ours) }()
	d := &desk{line: theirs, waiting: map[uint64]chan answer{}, log: slog.New(slog.DiscardHandler)}
	var listening sync.WaitGroup
	listening.Go(d.listen)
	if cert, err := d.authority("shop"); err != nil || string(cert) != "cert" {
		t.Errorf("%q, %v", cert, err)
	}
	if _, err := d.authority("bank"); err == nil || err.Error() != "no such cluster" {
		t.Errorf("an unknown cluster: %v", err)
	}
	_, err := d.ask(kindEnrol, func(id uint64) any { return enrolment{ID: id, Request: peer.EnrolRequest{Cluster: "bank"}} })
	if refused := new(wire.Refused); !errors.As(err, &refused) || refused.Code != "unsafe" {
		t.Errorf("a refusal: %v", err)
	}
	socket := connection(t)
	if err := theirs.send(kindLink, good(), socket); err != nil {
		t.Fatal(err)
	}
	if _, err := d.authority("shop"); err != nil { // the link is before it
		t.Fatal(err)
	}
	h.mu.Lock() // the line orders it, but says so to nobody
	taken := h.taken
	h.mu.Unlock()
	if len(taken) != 1 || taken[0].Node != "a" || taken[0].Cluster != "shop" || taken[0].FD == socket {
		t.Fatalf("taken: %+v", taken)
	}
	if flags, err := unix.FcntlInt(uintptr(taken[0].FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the next porter would inherit the link: %v", err)
	}
	_ = unix.Close(taken[0].FD)
	ours.Close()
	<-ended
	listening.Wait()
	if _, err := d.authority("shop"); !errors.Is(err, errGone) {
		t.Errorf("without a witness: %v", err)
	}
}

// journal is a log that several goroutines write.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// Porters that end badly in a row come ever later, whatever is wrong with them,
// and leave neither processes nor descriptors.
func TestPortersComeLaterAndLater(t *testing.T) {
	for name, test := range map[string]struct {
		command []string
		says    string
	}{
		"it ends":             {[]string{"/bin/sh", "-c", "exit 7"}, "exit status 7"},
		"it ends too soon":    {[]string{"/bin/sh", "-c", "exit 0"}, "before anybody"},
		"it dies":             {[]string{"/bin/sh", "-c", "kill -9 $$"}, "ended by the signal"},
		"it talks nonsense":   {[]string{"/bin/sh", "-c", "echo nonsense >&3; exec sleep 60"}, "not a packet"},
		"it goes on unheard":  {[]string{"/bin/sh", "-c", "exec 3>&-; exec sleep 60"}, "ended by the signal"},
		"there is no program": {[]string{"/nonexistent"}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			log := &journal{}
			keeper := &Keeper{
				Command: Command{Path: test.command[0], Args: test.command},
				House:   &house{}, Log: slog.New(slog.NewTextHandler(log, nil)),
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- keeper.Run(ctx, listener.(*net.TCPListener)) }()
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for began := time.Now(); !strings.Contains(log.String(), "400ms"); time.Sleep(10 * time.Millisecond) {
				if time.Since(began) > 20*time.Second {
					t.Fatalf("log: %s", log)
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			for i, pause := range []string{"100ms", "200ms", "400ms"} {
				line := strings.Split(log.String(), "\n")[i]
				if !strings.Contains(line, "next in\"="+pause) || !strings.Contains(line, test.says) {
					t.Errorf("end %d: %s", i+1, line)
				}
			}
			if n := openFiles(t); n != before { // the listener went, this end's connection came
				t.Errorf("%d open files, %d before", n, before)
			}
		})
	}
}
