package guard

// lease is the permission to run: pure state, no clock, no I/O.
type lease struct {
	epoch    uint64
	deadline int64
	standby  bool // may still be claimed, once, for a higher epoch
}

// expired says whether the guest must not run at the time now.
func (l *lease) expired(now int64) bool {
	return l.deadline != Forever && now >= l.deadline
}

// renew moves the deadline. It never moves to an earlier time, except from
// Forever, which is how a witness is added to a cluster; the other way a witness
// is removed. A repeated or overtaken renewal therefore does no harm.
func (l *lease) renew(now int64, epoch uint64, deadline int64) error {
	switch {
	case l.standby:
		return ErrUnclaimed
	case epoch < l.epoch:
		return ErrStaleEpoch
	case epoch > l.epoch:
		return ErrUnknownEpoch
	case deadline <= now:
		return ErrPastDeadline
	}
	if deadline > l.deadline || l.deadline == Forever {
		l.deadline = deadline
	}
	return nil
}

// claim makes a standby's guest the owner's: its epoch may only be known now, and
// is never lower than the one the standby was launched for.
func (l *lease) claim(now int64, epoch uint64, deadline int64) error {
	switch {
	case !l.standby:
		return ErrNotStandby
	case epoch < l.epoch:
		return ErrStaleEpoch
	case deadline <= now:
		return ErrPastDeadline
	}
	*l = lease{epoch: epoch, deadline: deadline}
	return nil
}

// revoke checks that the epoch to be ended is the one that runs: an order that
// was meant for an earlier tenure must not end a later one.
func (l *lease) revoke(epoch uint64) error {
	switch {
	case epoch < l.epoch:
		return ErrStaleEpoch
	case epoch > l.epoch:
		return ErrUnknownEpoch
	}
	return nil
}
