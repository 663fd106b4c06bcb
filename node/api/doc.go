// Package api is the agent's HTTP+JSON interface on a unix socket: the types
// that users' scripts see, the server, the client and the event stream.
//
// It must not know how anything is done: it calls the small interfaces in
// backend.go, which the node implements. It must not know the CLI either.
//
// Invariants:
//   - every failure is JSON: {"error": {"code", "message", "hint"}};
//   - fields are added to the types here, never renamed or removed;
//   - a request about a guest that the peer owns is passed to the peer, once.
package api
