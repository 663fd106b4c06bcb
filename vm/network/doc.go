// Package network makes and removes the host's end of a guest's network card:
// a persistent tap, attached to a bridge.
//
// It must not know of guests: it gets names and addresses. It makes no bridge
// and changes none beyond adding its port, except that a bridge without ports
// keeps the address it has.
//
// Invariants:
//   - A tap of ours is called vmc<8 of the uuid>n<card>, so both the creating
//     and a later process find it again, and Remove refuses any other name.
//   - Attach leaves a tap that is new and up, or none. A tap that was left
//     over is made anew, for it keeps the offloads of its last user.
package network
