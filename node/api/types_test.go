package api

import (
	"encoding/json"
	"testing"
	"time"

	"vmctl/ha/golden"
)

func exampleVM() VM {
	age := 0.25
	return VM{
		Name: "web", UUID: "11111111-2222-4333-8444-555555555555", State: "running", Owner: "a", Epoch: 3, Node: "a", Run: true,
		Protection: Protection{Level: "resume", IntervalSeconds: 1}, RPOSeconds: &age,
		Checkpoint: &Checkpoint{Epoch: 3, Sequence: 41, Time: exampleTime(), PauseMS: 4.5, Bytes: 123456},
		Replica:    &Replica{Node: "b", State: "synced", SyncedSequence: 41},
		Lease:      &Lease{Required: true, RemainingSeconds: 1.75},
		GuestAgent: &GuestAgent{Answers: true, Seen: &Time{exampleTime().Time}, ClockBehindSeconds: &age},
		PID:        4711, QMPSocket: "/run/vmctl/g/11111111/qmp.sock", SerialLog: "/var/lib/vmctl/guests/x/serial.log",
		CPUs: 2, Memory: "1GiB",
	}
}

func exampleTime() Time {
	return Time{time.Date(2026, 1, 2, 3, 4, 5, 7_000_000, time.UTC)}
}

func TestGoldenJSON(t *testing.T) {
	heard := 0.125
	for file, value := range map[string]any{
		"vm.json":     exampleVM(),
		"no-vm.json":  VM{},
		"event.json":  Event{Sequence: 9, Time: exampleTime(), Node: "a", Kind: "guest-started", VM: "web", Severity: "info", Message: "web started", Detail: map[string]string{"k": "v"}},
		"status.json": Status{Node: Node{Name: "a", Started: exampleTime(), Alarms: []Alarm{{Kind: "k", Text: "t", Since: exampleTime()}}}, VMs: []VM{}},
		"ha.json": HAStatus{
			Node: "a", Mode: "witness", Peer: &Member{Name: "b", Addr: "b:1", Reachable: true, SeenAgo: &heard},
			Witness: &Witness{Name: "w", Addr: "w:1"}, Guests: []HAGuest{{VM: "web", LastRenewal: &heard}},
		},
		"cluster.json":     Cluster{Name: "shop", ID: "id", Mode: "none", Self: "a", Members: []Member{{Name: "a", Addr: "a:1"}}},
		"maintenance.json": Maintenance{Node: "a", On: true, Moved: []string{"web"}, Stay: []Stay{{VM: "db", Reason: "r"}}, Stopped: []Stay{{VM: "x", Reason: "r"}}},
		"shutdown.json":    Shutdown{Node: "a", Moved: []string{"web"}, Stopped: []Stay{{VM: "db", Reason: "guest; r"}}, Stay: []Stay{}},
		"notify.json": struct {
			Targets []NotifyTarget
			Tests   []NotifyTest
		}{[]NotifyTarget{{Target: "syslog", Waiting: 1}}, []NotifyTest{{Target: "syslog", Millis: 1.5, Error: "e"}}},
		"token.json": Token{Token: "vmctl-x", Expires: exampleTime()},
	} {
		got, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden.Compare(t, file, string(got)+"\n") // fields are added, never renamed
	}
}

// The names that scripts rely on, whatever the golden file says.
func TestPromisedFields(t *testing.T) {
	data, err := json.Marshal(exampleVM())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"name", "uuid", "state", "owner", "epoch", "node", "protection.level", "protection.interval_seconds", "rpo_seconds",
		"checkpoint.epoch", "checkpoint.sequence", "checkpoint.time", "checkpoint.pause_ms", "checkpoint.bytes",
		"replica.node", "replica.state", "replica.synced_sequence", "pid", "qmp_socket", "serial_log",
	} {
		if lookup(got, name) == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func lookup(value map[string]any, path string) any {
	for i := range path {
		if path[i] == '.' {
			inner, _ := value[path[:i]].(map[string]any)
			return lookup(inner, path[i+1:])
		}
	}
	return value[path]
}

func TestTime(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	for text, value := range map[string]time.Time{
		`"2026-01-02T03:04:05.007Z"`: time.Date(2026, 1, 2, 3, 4, 5, 7_999_999, time.UTC),
		`"2026-01-02T03:04:05.000Z"`: time.Date(2026, 1, 2, 5, 4, 5, 0, zone),
	} {
		if got, err := json.Marshal(Time{value}); err != nil || string(got) != text {
			t.Errorf("%v: %s, %v", value, got, err)
		}
	}
	for _, text := range []string{`"2026-01-02T05:04:05+02:00"`, `"2026-01-02T03:04:05.000000Z"`} {
		var got Time
		if err := json.Unmarshal([]byte(text), &got); err != nil || !got.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{`5`, `null`, `""`, `"now"`, `{}`} {
		var got Time
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s was taken for %v", text, got)
		}
	}
}
