package api

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"vmctl/vm"
)

func TestLogs(t *testing.T) {
	f := &fake{log: filepath.Join(t.TempDir(), "serial.log")}
	c := clientOf(t, serve(t, f))
	if _, err := c.Logs(t.Context(), "web", false); codeOf(err).Code != NotFound {
		t.Errorf("without a log: %v", err)
	}
	file, err := os.OpenFile(f.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) // as QEMU does
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	add := func(text string) {
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	add("one\n")
	whole, err := c.Logs(t.Context(), "web", false)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if text, err := io.ReadAll(whole); err != nil || string(text) != "one\n" {
		t.Errorf("%q, %v", text, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed, err := c.Logs(ctx, "web", true)
	if err != nil {
		t.Fatal(err)
	}
	defer followed.Close()
	expect(t, followed, "one\n")
	add("two\n")
	expect(t, followed, "two\n")
	// What has become too long begins again.
	if err := vm.KeepLogShort(f.log, 1); err != nil {
		t.Fatal(err)
	}
	add("three\n")
	expect(t, followed, "three\n")
	all, err := c.Logs(t.Context(), "web", false)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if text, err := io.ReadAll(all); err != nil || string(text) != "one\ntwo\nthree\n" {
		t.Errorf("%q, %v", text, err)
	}
	cancel()
	if _, err := io.ReadAll(followed); err == nil {
		t.Error("it goes on without its reader")
	}
}

func expect(t *testing.T, from io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v; want %q", got, err, text)
	}
}
