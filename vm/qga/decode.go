package qga

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// maxLine bounds an answer; the commands of this package have short ones.
	maxLine = 4 << 10
	// maxPassed bounds what is passed over before the answer to a sync: more than
	// the port and its socket hold of former answers.
	maxPassed = 1 << 20
)

// reader takes the agent's stream apart.
type reader struct{ in *bufio.Reader }

func newReader(r io.Reader) *reader { return &reader{bufio.NewReaderSize(r, maxLine)} }

// line is the next line that is not empty, good until the next read.
func (r *reader) line() ([]byte, error) {
	for passed := 0; passed < maxLine; {
		line, err := r.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("%w: a line is longer than %d bytes", ErrProtocol, maxLine)
		}
		if err != nil {
			return nil, err
		}
		if passed += len(line); len(bytes.TrimSpace(line)) > 0 {
			return line, nil
		}
	}
	return nil, fmt.Errorf("%w: nothing but empty lines", ErrProtocol)
}

// skipTo passes over everything up to the delimited answer id.
func (r *reader) skipTo(id int64) error {
	for passed := 0; passed < maxPassed; {
		part, err := r.in.ReadSlice(syncByte)
		passed += len(part)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return err
		}
		// The answer to an earlier sync may have been cut by the byte of this one.
		next, err := r.in.Peek(1)
		if err != nil {
			return err
		}
		if next[0] == syncByte {
			continue
		}
		// What looks like an answer costs more to look at than to pass over.
		passed += maxLine
		line, err := r.line()
		if errors.Is(err, ErrProtocol) {
			continue
		}
		if err != nil {
			return err
		}
		if end := bytes.LastIndexByte(line, syncByte); end >= 0 {
			line = line[end+1:]
		}
		var got int64
		if decodeAnswer(line, &got) == nil && got == id {
			return nil
		}
	}
	return fmt.Errorf("%w: too much without the answer to a sync", ErrProtocol)
}

// decodeAnswer reads one answer; an *Error is the agent's refusal.
func decodeAnswer(line []byte, reply any) error {
	var answer struct {
		Return json.RawMessage `json:"return"`
		Error  *Error          `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case answer.Error != nil:
		return answer.Error
	case answer.Return == nil, bytes.Equal(answer.Return, []byte("null")): // it would leave reply as it was
		return fmt.Errorf("%w: an answer without a result", ErrProtocol)
	case reply == nil:
		return nil
	}
	if err := json.Unmarshal(answer.Return, reply); err != nil {
		return fmt.Errorf("%w: an unexpected result: %w", ErrProtocol, err)
	}
	return nil
}
