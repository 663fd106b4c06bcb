package peer

import (
	"net"
	"sync"
)

// doors counts the connections that are shaking hands, in all and by address.
type doors struct {
	mu     sync.Mutex
	total  int
	inside map[string]int
}

// enter takes a place, if there is one; leave gives it back.
func (d *doors) enter(from net.Addr) (leave func(), ok bool) {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total >= maxHandshakes || d.inside[host] >= maxPerHost {
		return nil, false
	}
	d.total++
	d.inside[host]++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.total--
		if d.inside[host]--; d.inside[host] == 0 {
			delete(d.inside, host)
		}
	}), true
}
