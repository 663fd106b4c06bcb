package guard

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		in   string
		want request
		err  error
	}{
		{"1 5 renew 7 99", request{5, verbRenew, [2]uint64{7, 99}}, nil},
		{"1 5 renew 7 9223372036854775807", request{5, verbRenew, [2]uint64{7, math.MaxInt64}}, nil},
		{"1 18446744073709551615 kill", request{math.MaxUint64, verbKill, [2]uint64{}}, nil},
		{"1 1 revoke 0", request{1, verbRevoke, [2]uint64{}}, nil},
		{"2 5 renew 7 99", request{tag: 5}, ErrVersion},
		{"1 5 renew 7 9223372036854775808", request{tag: 5}, ErrMalformed},
		{"1 5 renew 18446744073709551616 1", request{tag: 5}, ErrMalformed},
		{"1 5 renew 7", request{tag: 5}, ErrMalformed},
		{"1 5 renew 7 8 9", request{tag: 5}, ErrMalformed},
		{"1 5 renew 7 8 ", request{tag: 5}, ErrMalformed},
		{"1 5 renew  7 8", request{tag: 5}, ErrMalformed},
		{"1 5 renew 07 8", request{tag: 5}, ErrMalformed},
		{"1 5 renew -7 8", request{tag: 5}, ErrMalformed},
		{"1 5 dance", request{tag: 5}, ErrMalformed},
		{"1 5 ", request{tag: 5}, ErrMalformed},
		{"1 0 status", request{}, ErrMalformed},
		{"1", request{}, ErrMalformed},
		{"", request{}, ErrMalformed},
	} {
		r, err := decodeRequest([]byte(c.in))
		if !errors.Is(err, c.err) || r.tag != c.want.tag || err == nil && r != c.want {
			t.Errorf("%q: %+v, %v; want %+v, %v", c.in, r, err, c.want, c.err)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, c := range codes {
		r, err := decodeReply(appendError(nil, 3, c.err))
		if err != nil || r.tag != 3 || !errors.Is(r.err, c.err) {
			t.Errorf("%v arrives as %+v, %v", c.err, r, err)
		}
	}
	if r, err := decodeReply([]byte("1 3 error too-warm")); err != nil || r.err == nil || !strings.Contains(r.err.Error(), "too-warm") {
		t.Errorf("an unknown code: %+v, %v", r, err)
	}
}

func sampleStatus() Status {
	return Status{
		GuardPID: 10, PID: 11, StartTime: 12, UUID: "a-b", LaunchID: "x", Epoch: 3, Deadline: 4, Standby: true,
		Frozen: true, Stopped: true, Freezes: 5, FreezeNS: 6, Ending: true, Pause: 7, PauseEnded: true,
		LastPause: 8, Resuming: true, MemoryLocked: true, RealTime: true,
	}
}

func TestStatusCrossesTheWire(t *testing.T) {
	want := sampleStatus()
	for _, f := range reflect.VisibleFields(reflect.TypeOf(want)) {
		if reflect.ValueOf(want).FieldByIndex(f.Index).IsZero() {
			t.Fatalf("the sample lacks %s", f.Name)
		}
	}
	// A later guard may say more than this version knows.
	r, err := decodeReply(append(want.append(appendOK(nil, 1)), " temperature=hot"...))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeStatus(r.words); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	largest := Status{
		GuardPID: math.MaxInt32, PID: math.MaxInt32, StartTime: math.MaxUint64, UUID: strings.Repeat("u", 64),
		LaunchID: strings.Repeat("l", 64), Epoch: math.MaxUint64, Deadline: Forever, Freezes: math.MaxUint64,
		FreezeNS: Forever, Pause: math.MaxUint64, LastPause: math.MaxUint64,
	}
	if n := len(largest.append(appendOK(nil, math.MaxUint64))); n > maxMessage {
		t.Errorf("a status can take %d bytes", n)
	}
}

func TestExitCrossesTheWire(t *testing.T) {
	want := ExitRecord{PID: 11, Code: -1, Signal: 9, Time: time.Unix(5, 6), Reason: ReasonRevoked}
	r, err := decodeReply(appendExit(nil, &want))
	if err != nil || r.tag != 0 {
		t.Fatal(r, err)
	}
	if got, err := decodeExit(r.words); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// A guard of an older vmctl is adopted by a newer agent: the files must stay readable.
func TestGoldenFiles(t *testing.T) {
	data, err := os.ReadFile("testdata/launch.json")
	if err != nil {
		t.Fatal(err)
	}
	l, err := decodeLaunch("launch.json", data)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := json.MarshalIndent(l, "", "  ")
	if strings.TrimSpace(string(data)) != string(again) {
		t.Errorf("launch file changed its form:\n%s", again)
	}
	r, err := ReadExitRecord("testdata/exit.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.String(); got != "QEMU (pid 4711) ended by signal 9 (killed), revoked; its last output:\nqemu: terminating" {
		t.Errorf("record reads %q", got)
	}
}

func TestStartTimeOfOddNames(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 12345 20 21"
	for _, name := range []string{"(qemu)", "(a) S 9 (b)", "()) )"} {
		if n, err := parseStartTime([]byte("77 " + name + tail)); err != nil || n != 12345 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	for _, bad := range []string{"", "77 (x) S 1", "77 no name", "77 (x)" + strings.Repeat(" x", 30)} {
		if n, err := parseStartTime([]byte(bad)); err == nil {
			t.Errorf("%q: %d", bad, n)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for v := verbRenew; int(v) < len(verbs); v++ {
		f.Add(appendRequest(nil, request{tag: 1, verb: v, args: [2]uint64{7, 8}}))
	}
	f.Add([]byte("2 5 renew 7 99"))
	f.Add([]byte("1 5 renew 07 99"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, err := decodeRequest(packet)
		if err == nil && string(appendRequest(nil, r)) != string(packet) {
			t.Errorf("%q has a second form: %+v", packet, r)
		}
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrVersion) {
			t.Errorf("%q: %v", packet, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	s := sampleStatus()
	f.Add(s.append(appendOK(nil, 1)))
	f.Add(appendExit(nil, &ExitRecord{PID: 1, Reason: ReasonExited}))
	f.Add(appendError(nil, 1, ErrStaleEpoch))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, err := decodeReply(packet)
		if err != nil {
			return
		}
		_, _ = decodeExit(r.words)
		if s, err := decodeStatus(r.words); err == nil {
			words := strings.Split(string(s.append(nil)), " ")[1:]
			if again, err := decodeStatus(words); err != nil || again != s {
				t.Errorf("%q: %+v reads back as %+v, %v", packet, s, again, err)
			}
		}
	})
}

func FuzzLaunch(f *testing.F) {
	data, err := os.ReadFile("testdata/launch.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"deadline_ns": -1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := decodeLaunch("x", data); err == nil && (len(l.Argv) == 0 || l.DeadlineNS <= 0) {
			t.Errorf("accepted %+v", l)
		}
	})
}
