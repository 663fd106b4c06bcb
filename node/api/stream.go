package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"vmctl/vm"
)

// consoleProtocol names the raw byte stream a console request upgrades to.
const consoleProtocol = "vmctl-console"

// events streams one JSON object a line.
func (b *Backend) events(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	filter := EventFilter{VM: query.Get("vm"), Follow: query.Get("follow") == "true"}
	if text := query.Get("since"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		if err != nil {
			b.fail(w, r, Errorf(Usage, "since: %q is not an RFC 3339 time", text))
			return
		}
		filter.Since = since
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flusher := http.NewResponseController(w)
	_ = flusher.Flush()
	encoder := json.NewEncoder(w)
	for event, err := range b.Observer.Events(r.Context(), filter) {
		if err != nil {
			_ = encoder.Encode(map[string]*Error{"error": AsError(err)}) // the status is sent already
			return
		}
		if encoder.Encode(event) != nil || flusher.Flush() != nil {
			return
		}
	}
}

// console joins the client to the guest's serial line until either end closes.
func (b *Backend) console(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != consoleProtocol {
		b.fail(w, r, Errorf(Usage, "a console needs an Upgrade to %s", consoleProtocol))
		return
	}
	line, err := b.Operator.Console(r.Context(), r.PathValue("vm"))
	if err != nil {
		b.fail(w, r, err)
		return
	}
	defer line.Close()
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", consoleProtocol)
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		b.Log.Warn("console not opened", "error", err)
		return
	}
	defer conn.Close()
	// The server forgets a connection that was taken over.
	defer context.AfterFunc(r.Context(), func() { conn.Close(); line.Close() })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(conn, line)
		conn.Close()
	}()
	_, _ = io.Copy(line, buffered)
	line.Close()
	<-done
}

// logs sends the serial log, and with follow=true what is added to it.
func (b *Backend) logs(w http.ResponseWriter, r *http.Request) {
	path, err := b.Operator.SerialLog(r.Context(), r.PathValue("vm"))
	if err != nil {
		b.fail(w, r, err)
		return
	}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		b.fail(w, r, Errorf(NotFound, "no serial log yet: %s has never run on this node", r.PathValue("vm")))
		return
	}
	if err != nil {
		b.fail(w, r, Errorf(Failed, "open the serial log: %v", err))
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if older, err := os.Open(vm.OlderLog(path)); err == nil {
		_, err = io.Copy(w, older)
		if errors.Join(err, older.Close()) != nil {
			return
		}
	}
	if _, err := io.Copy(w, file); err != nil || r.URL.Query().Get("follow") != "true" {
		return
	}
	follow(r.Context(), w, file)
}

// followInterval is how often a followed log is looked at.
const followInterval = 200 * time.Millisecond

func follow(ctx context.Context, w http.ResponseWriter, file *os.File) {
	flusher := http.NewResponseController(w)
	ticker := time.NewTicker(followInterval)
	defer ticker.Stop()
	for {
		if flusher.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := fromItsBeginning(file); err != nil {
			return
		}
		if _, err := io.Copy(w, file); err != nil {
			return
		}
	}
}

// fromItsBeginning goes back to that of a log that was cut since it was read.
func fromItsBeginning(file *os.File) error {
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil || info.Size() >= at {
		return err
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}
