// Package clock keeps the clock of one running guest from falling behind: a
// resumed guest's is late by the time it was away, and every pause for a
// checkpoint costs it as much again.
//
// It must not know how the guest is protected or who owns it: it is told what
// time the guest lost, and asks and sets its clock through an Agent.
//
// Invariants:
//   - A clock is only ever set forward. What is made up for here can only make a
//     guest late; one that is ahead of this host has its time from elsewhere, and
//     this host may be the one that is wrong.
//   - Only a guest that lost time is set, and only when it is late. Nothing else
//     of its clock is this node's business.
//   - A guest that stands still is not asked: it could not answer, and nothing
//     here makes it run.
//   - Nobody waits for a guest: Lost and Status return at once, and each contact
//     has a bound.
package clock
