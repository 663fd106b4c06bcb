package vm

// NoStandby says why no QEMU waits on the peer to take this guest, "" if one does.
// A waiting QEMU has a user network's ports and a user's tap open already: that
// would take connections, or keep packets, long before the guest is there.
func (s Spec) NoStandby() string {
	switch {
	case s.Protection.Level != ProtectResume:
		return "the guest has no checkpoints (protection " + s.Protection.Level + ")"
	case !on(s.Standby):
		return "the guest's spec says standby: false"
	case s.Recovery.Action == RecoverRestart:
		return "the guest's recovery policy boots it"
	}
	for _, n := range s.NICs {
		if n.Type == NICTap {
			return "the guest is on a tap of the host's own"
		}
		if len(n.Forward) > 0 {
			return "the guest has ports of the host forwarded to it"
		}
	}
	return ""
}
