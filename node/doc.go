// Package node is the agent's composition root: it opens the store, wires the
// rooms together, executes what ha decides, and closes in reverse.
//
// It must not decide who may run a guest: ha does. It must not know QEMU's
// words: vm does. What stands here is who owns which goroutine and in which
// order things open and close.
//
// Invariants:
//   - one goroutine steps the lease core, one lives each guest;
//   - an action's record is durable before the actions behind it happen;
//   - a guest starts only under a lease, and only once writes that its peer
//     does not see are allowed (the replica is durably outdated);
//   - every goroutine ends, and is waited for, before Run returns. Guests run on.
package node
