// Package cli is the command line: one file per verb, one map of exit codes.
//
// It speaks to the agent through node/api only, never to the database. It must
// not decide anything about guests; it turns words into calls and answers into
// tables or JSON.
//
// Invariants: results go to standard output, messages to standard error; the
// exit code says what class of failure it was (exit.go); flags may stand
// before or after the arguments.
package cli
