package api

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestLogs(t *testing.T) {
	f := &fake{log: filepath.Join(t.TempDir(), "serial.log")}
	c := clientOf(t, serve(t, f))
	if _, err := c.Logs(t.Context(), "web", false); codeOf(err).Code != NotFound {
		t.Errorf("without a log: %v", err)
	}
	file, err := os.Create(f.log)
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
	for _, text := range []string{"one\n", "two\n", "three\n"} {
		got := make([]byte, len(text))
		if _, err := io.ReadFull(followed, got); err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
		if text != "three\n" {
			add(map[string]string{"one\n": "two\n", "two\n": "three\n"}[text])
		}
	}
	cancel()
	if _, err := io.ReadAll(followed); err == nil {
		t.Error("it goes on without its reader")
	}
}
