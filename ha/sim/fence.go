package sim

import (
	"time"

	"vmctl/ha"
)

// fence is the device that switches the other host off. It answers when it has
// seen that the host is off, or that it cannot be switched; a device that fails
// may have switched all the same. The host comes back some time later, perhaps
// before the answer.
func (h *host) fence(a ha.Fence) {
	w := h.w
	w.stats.Shots++
	if w.scripted != nil {
		w.scripted.shoot(h, a)
		return
	}
	for _, target := range w.hosts[:nodes] {
		if target.id != a.Node {
			continue
		}
		life := h.life
		answer := func(ok bool, text string) {
			w.after(w.between(0, time.Second), func() {
				if h.life == life {
					h.deliver(ha.Fenced{ID: a.ID, OK: ok, Err: text})
				}
			})
		}
		w.after(w.between(50*time.Millisecond, 2*time.Second), func() {
			failed := target.noDevice > 0 || !h.power
			if !failed || w.chance(0.3) && h.power {
				w.logf("%s is switched off by the device", target.id)
				target.powerOff()
				w.after(w.between(200*time.Millisecond, 8*time.Second), func() { target.powerOn(); target.startAgent() })
			}
			if failed {
				answer(false, "the device does not confirm")
				return
			}
			answer(true, "")
		})
		return
	}
}
