package samples

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Read reads what earlier invocations left; a file that is not there holds none.
func Read[T any](path string) (list []T, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); ; {
		if !lines.Scan() {
			return list, lines.Err()
		}
		var sample T
		if err := json.Unmarshal(lines.Bytes(), &sample); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, sample)
	}
}

// Append adds a sample to a file.
func Append[T any](path string, sample T) error {
	line, err := json.Marshal(sample)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}
