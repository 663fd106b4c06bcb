// Package doctor looks at this host and says what stands in the way of running
// and protecting guests, and what to do about it.
//
// It only looks: nothing is changed and no agent is needed. It must not decide
// for the agent; the agent finds out for itself what it needs.
package doctor
