package node

import (
	"context"

	"vmctl/node/api"
	"vmctl/node/notify"
)

// notifyTargets shows who hears of events and alarms.
func (n *Node) notifyTargets() []api.NotifyTarget {
	var list []api.NotifyTarget
	for _, s := range n.notifier.Status() {
		t := api.NotifyTarget{Target: s.Target, Delivered: s.Delivered, Waiting: s.Waiting, Lost: s.Lost}
		if !s.Failing.IsZero() {
			t.Failing = &api.Time{Time: s.Failing}
		}
		if s.Reason != nil {
			t.Error = s.Reason.Error()
		}
		list = append(list, t)
	}
	return list
}

// NotifyTest implements api.Hosts.
func (n *Node) NotifyTest(ctx context.Context) ([]api.NotifyTest, error) {
	if len(n.config.Notify) == 0 {
		return nil, api.Errorf(api.Conflict, "send a test notification: nobody is to be told of anything").
			WithHint("Name a webhook, a program or the system's log under `notify` in the config file, then `systemctl restart vmctl` (guests run on).")
	}
	list := []api.NotifyTest{}
	for _, r := range n.notifier.Test(ctx, notify.Event{
		Kind: "notify-test", Severity: info, Node: n.config.Name, Message: "this is a test of notifications from node " + n.config.Name,
	}) {
		test := api.NotifyTest{Target: r.Target, OK: r.Err == nil, Millis: float64(r.Took.Microseconds()) / 1000}
		if r.Err != nil {
			test.Error = r.Err.Error()
		}
		list = append(list, test)
	}
	return list, nil
}
