package replicator

import "fmt"

// The queue is the order of the stream. One at a time sends what is at its head:
// the sender, or, when there is nothing else to send, whoever has put it there, for
// waking the sender takes longer than sending. Whoever does so sends his own frame
// only: the rest is the sender's.

// send is the sender: it takes what is queued and sends it.
func (l *link) send() error {
	var batch []frame
	for {
		l.r.mu.Lock()
		if l.busy {
			batch = batch[:0] // whoever is busy wakes us
		} else {
			batch, l.queue = l.queue, batch[:0]
			l.busy = len(batch) > 0
		}
		l.r.mu.Unlock()
		if len(batch) == 0 {
			select {
			case <-l.ctx.Done():
				return nil
			case <-l.wake:
			}
			continue
		}
		err := l.sendAll(batch)
		l.r.mu.Lock()
		l.handOver()
		l.r.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (l *link) sendAll(batch []frame) error {
	for i, f := range batch {
		if err := l.stream.Send(f.kind, f.body); err != nil {
			return fmt.Errorf("send to the peer: %w", err)
		}
		batch[i] = frame{}
	}
	return nil
}

// handOver ends being busy; r.mu is held.
func (l *link) handOver() {
	l.busy = false
	l.calm.Broadcast()
	if len(l.queue) > 0 {
		l.wakeSender()
	}
}

// sendNow puts a frame at the end of the stream, and sends it if nothing else is to
// be sent. r.mu is held, but for the time of sending.
func (l *link) sendNow(f frame) {
	if l.busy || len(l.queue) > 0 {
		l.push(f)
		return
	}
	l.busy = true
	l.r.mu.Unlock()
	err := l.sendAll([]frame{f})
	l.r.mu.Lock()
	l.handOver()
	if err != nil {
		l.lose(err)
	}
}
