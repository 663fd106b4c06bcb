// Command workload is what the test guest does: package work's steps, and
// answers to who asks. It is started by the guest's init and ends only with the machine.
//
// It must not know that it can be checkpointed or moved.
package main
