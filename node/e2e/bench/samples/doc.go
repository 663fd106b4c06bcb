// Package samples keeps what benches measured, a JSON line each, so that a later
// run can go on with them, and makes medians and a page of it.
package samples
