package api

import (
	"errors"
	"fmt"
	"net/http"
)

// Code classes a failure. The CLI turns it into an exit code, in one place.
type Code string

// The codes, in the order of the CLI's exit codes 1 to 6.
const (
	Failed      Code = "failed"
	Usage       Code = "usage"
	NotFound    Code = "not_found"
	Conflict    Code = "conflict"
	Unreachable Code = "unreachable"
	Unsafe      Code = "unsafe"
)

// Error is a failure as the user sees it: what was attempted and why it failed
// in Message, what to do next in Hint.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "\n  " + e.Hint
}

// Errorf makes an Error without a hint.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint adds what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// AsError makes any error one of the API's. What carries no code is "failed".
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Failed, Message: err.Error()}
}

// ParseCode reads a code that another program sent. One that is not known here
// is "failed".
func ParseCode(text string) Code {
	switch code := Code(text); code {
	case Usage, NotFound, Conflict, Unreachable, Unsafe:
		return code
	}
	return Failed
}

func (c Code) status() int {
	switch c {
	case Usage:
		return http.StatusBadRequest
	case NotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case Unreachable:
		return http.StatusBadGateway
	case Unsafe:
		return http.StatusForbidden
	}
	return http.StatusInternalServerError
}
