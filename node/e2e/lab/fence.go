package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// fenceAgent switches a host of the lab off as a power strip would: all its
// processes end and its cable is dead.
const fenceAgent = `#!/bin/sh
action= plug=
while read -r line; do
  case $line in action=*) action=${line#*=};; plug=*) plug=${line#*=};; esac
done
echo "$(date +%%s.%%N) $action $plug" >>%[2]q
pids() { ip netns pids %[1]q"$plug"; }
case $action in
metadata) cat <<X
<?xml version="1.0" ?>
<resource-agent name="fence_lab"><parameters><parameter name="plug"/></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/></actions></resource-agent>
X
;;
off)
  ip -n %[1]qs link set "p$plug" down
  for i in 1 2 3 4 5; do
    [ -z "$(pids)" ] && exit 0
    for p in $(pids); do kill -9 "$p"; done
    sleep 0.05
  done
  exit 1;;
status) if [ -z "$(pids)" ]; then echo "Status: OFF"; exit 2; fi; echo "Status: ON";;
esac
`

// Fences adds a fencing device to the config of both nodes; each shoots the other.
// Lab.Configure makes one without.
func (l *Lab) Fences() error {
	agent := filepath.Join(l.Dir, "fence_lab")
	if err := os.WriteFile(agent, fmt.Appendf(nil, fenceAgent, l.ID, l.ShotLog()), 0o755); err != nil {
		return err
	}
	for h, other := range map[*Host]*Host{l.A: l.B, l.B: l.A} {
		before, err := os.ReadFile(h.config)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%sfence:\n  agent: %s\n  options:\n    plug: %s\n  timeout: 20s\n", before, agent, other.Name)
		if err := h.Configure(text); err != nil {
			return err
		}
	}
	return nil
}

// ShotLog has a line for everything that the fencing device was asked.
func (l *Lab) ShotLog() string { return filepath.Join(l.Dir, "shots") }
