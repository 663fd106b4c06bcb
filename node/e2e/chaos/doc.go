// Package chaos throws random faults, often two at once, at two hosts, a witness
// and a guest, and proves from outside that the guest never runs twice, never
// breaks, boots anew only with cause, and is well again once the faults are over.
//
// It must not reach into the product's packages for what a user could not see.
// A seed gives the same faults with the same gaps; what the processes do
// meanwhile is theirs. A failing run keeps its logs and names where.
package chaos
