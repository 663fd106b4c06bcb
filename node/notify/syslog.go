package notify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// syslog writes to the system's log: to journald where it is, else to /dev/log.
type syslog struct {
	journal, devlog string // sockets
	timeout         time.Duration
}

func newSyslog(t Target) *syslog {
	return &syslog{journal: "/run/systemd/journal/socket", devlog: "/dev/log", timeout: t.timeout()}
}

func (s *syslog) name() string { return "syslog" }

// send connects anew for each delivery: the log's daemon may have been
// restarted since the last.
func (s *syslog) send(ctx context.Context, d Delivery) error {
	err := s.write(ctx, "unixgram", s.journal, journalEntry(d))
	// Without journald there is no socket, or one that nobody listens on.
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		err = s.write(ctx, "unixgram", s.devlog, rfc5424(d, os.Getpid()))
		if errors.Is(err, syscall.EPROTOTYPE) { // some daemons listen on a stream
			err = s.write(ctx, "unix", s.devlog, append(rfc5424(d, os.Getpid()), '\n'))
		}
	}
	return err
}

func (s *syslog) write(ctx context.Context, network, path string, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, path)
	if err != nil {
		return fmt.Errorf("reach the system's log: %w", err)
	}
	defer conn.Close()
	// A daemon that does not read lets writers wait; ctx is not to wait for it.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("write to the system's log: %w", err)
	}
	return nil
}

// severity is the number of syslog(3).
func severity(d Delivery) int {
	switch {
	case d.State == Off:
		return 5 // notice
	case d.Severity == Alarm:
		return 1 // alert
	case d.Severity == Warning:
		return 4
	}
	return 6
}

const facility = 3 // daemon

// line is a delivery for people.
func line(d Delivery) string {
	var b strings.Builder
	if d.VM != "" {
		b.WriteString(d.VM + ": ")
	}
	b.WriteString(d.Message)
	if d.Repeated > 0 {
		fmt.Fprintf(&b, " (and %d times more)", d.Repeated)
	}
	if d.Dropped > 0 {
		fmt.Fprintf(&b, " (%d notifications before this one were lost)", d.Dropped)
	}
	return b.String()
}

// words are a delivery's parts, by their name.
func words(d Delivery) [][2]string {
	return [][2]string{{"id", d.ID}, {"kind", d.Kind}, {"severity", d.Severity}, {"vm", d.VM}, {"node", d.Node}, {"time", d.Time},
		{"state", string(d.State)}, {"repeated", strconv.Itoa(d.Repeated)}, {"dropped", strconv.Itoa(d.Dropped)}}
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// rfc5424 is a message of RFC 5424. The structured data's name has the number
// that RFC 5612 sets aside for those without one of their own.
func rfc5424(d Delivery, pid int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%d>1 %s %s vmctl %d %s [vmctl@32473", facility*8+severity(d), d.Time, header(d.Node, 255), pid, header(d.Kind, 32))
	for _, word := range words(d) {
		if word[1] != "" {
			fmt.Fprintf(&b, ` %s="%s"`, word[0], escape.Replace(word[1]))
		}
	}
	b.WriteString("] \ufeff" + strings.ReplaceAll(line(d), "\n", " "))
	return b.Bytes()
}

// header is a word of the header: printable ASCII, or "-".
func header(word string, most int) string {
	word = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, word)
	if word == "" {
		return "-"
	}
	return word[:min(len(word), most)]
}

// journalEntry is an entry in journald's own protocol.
func journalEntry(d Delivery) []byte {
	var b bytes.Buffer
	field := func(name, value string) {
		b.WriteString(name)
		if !strings.Contains(value, "\n") {
			b.WriteString("=" + value + "\n")
			return
		}
		b.WriteByte('\n')
		_ = binary.Write(&b, binary.LittleEndian, uint64(len(value))) // into memory
		b.WriteString(value + "\n")
	}
	field("MESSAGE", line(d))
	field("PRIORITY", strconv.Itoa(severity(d)))
	field("SYSLOG_FACILITY", strconv.Itoa(facility))
	field("SYSLOG_IDENTIFIER", "vmctl")
	for _, word := range words(d) {
		if word[1] != "" {
			field("VMCTL_"+strings.ToUpper(word[0]), word[1])
		}
	}
	return b.Bytes()
}
