package cli

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

func TestJoinConsole(t *testing.T) {
	for _, test := range []struct{ typed, sent string }{
		{"ls\n" + string(rune(escape)) + "rest", "ls\n"},
		{string(rune(escape)), ""},
	} {
		here, guest := net.Pipe()
		got := make(chan string)
		go func() { text, _ := io.ReadAll(guest); got <- string(text) }()
		if err := join(strings.NewReader(test.typed), io.Discard, here); err != nil {
			t.Errorf("%q: %v", test.typed, err)
		}
		if sent := <-got; sent != test.sent {
			t.Errorf("%q: the guest got %q", test.typed, sent)
		}
	}

	// The end of the input is not the end of the guest's answer.
	here, guest := net.Pipe()
	go func() {
		buffer := make([]byte, 10)
		n, _ := guest.Read(buffer)
		_, _ = guest.Write(bytes.ToUpper(buffer[:n]))
		guest.Close()
	}()
	var out bytes.Buffer
	if err := join(strings.NewReader("ls"), &out, here); err != nil || out.String() != "LS" {
		t.Errorf("%q, %v", &out, err)
	}

	// A reader that fails does not end it, a line that fails does.
	here, guest = net.Pipe()
	guest.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	if err := join(reader, io.Discard, here); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}
