package vm

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// LogBound is how many bytes a log of a guest may have, and the one before it.
const LogBound = 8 << 20

// OlderLog is where what came before a log's present beginning is.
func OlderLog(path string) string { return path + ".1" }

// KeepLogShort bounds a log that another process appends to and never opens anew, as
// QEMU does: above most bytes it becomes the older log, in place of that one, and begins
// again. What is appended in the last moment of that is lost: the writer cannot be
// stopped. A log that does not exist is short.
func KeepLogShort(path string, most int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() <= most {
		return nil
	}
	if err == nil {
		err = cutLog(path)
	}
	if err != nil {
		return fmt.Errorf("keep log %s short: %w", path, err)
	}
	return nil
}

func cutLog(path string) (err error) {
	log, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	partial := OlderLog(path) + ".partial"
	older, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(partial))
		}
	}()
	_, err = io.Copy(older, log)
	if err = errors.Join(err, older.Close()); err != nil {
		return err
	}
	// First, so that a crash between the two leaves something twice and nothing out.
	if err := os.Rename(partial, OlderLog(path)); err != nil {
		return err
	}
	return log.Truncate(0)
}
