package snapshot

import "testing"

// guestModel says what a look and a pause copy of a guest.
type guestModel struct {
	written func(interval int) uint64 // pages changed in an interval
	again   float64                   // share of the pages that is written again after each look
}

// run gives the pages copied in each pause, and the looks before it.
func (g guestModel) run(n int) (paused []uint64, looks []int) {
	p := prePass{due: true}
	for i := range n {
		left := g.written(i)
		passes, first := 0, uint64(0)
		if p.wanted() {
			for before := uint64(0); ; {
				now := left
				if passes++; passes == 1 {
					first = now
				}
				left = uint64(float64(now) * g.again)
				if !p.again(passes, before, now) {
					break
				}
				before = now
			}
		}
		p.done(passes, first, left)
		paused, looks = append(paused, left), append(looks, passes)
	}
	return paused, looks
}

func sum[T int | uint64](list []T) (total T) {
	for _, v := range list {
		total += v
	}
	return total
}

func always(pages uint64) func(int) uint64 { return func(int) uint64 { return pages } }

func TestPrePassShortensThePauseOfABusyGuest(t *testing.T) {
	paused, looks := guestModel{written: always(20000), again: 0.1}.run(100)
	for i := 2; i < 100; i++ { // the second pause shows that the guest is busy
		if paused[i] > fewPages || looks[i] == 0 || looks[i] > mostPasses {
			t.Fatalf("checkpoint %d: %d pages left after %d looks", i, paused[i], looks[i])
		}
	}
}

func TestPrePassCostsAQuietGuestNothing(t *testing.T) {
	if _, looks := (guestModel{written: always(fewPages), again: 0}).run(100); sum(looks) != 1 {
		t.Errorf("looked %d times, once was needed", sum(looks))
	}
}

func TestPrePassRestsWhenItDoesNotHelp(t *testing.T) {
	paused, looks := guestModel{written: always(20000), again: 1}.run(1000)
	if n := sum(looks); n > 70 || n < 20 {
		t.Errorf("%d looks before 1000 pauses, none of which helped", n)
	}
	if sum(paused) > 1000*20000 {
		t.Error("the model is wrong")
	}
}

func TestPrePassFollowsAChange(t *testing.T) {
	_, looks := guestModel{again: 0.05, written: func(i int) uint64 {
		if i < 50 || i >= 100 {
			return 10
		}
		return 50000
	}}.run(150)
	if sum(looks[2:50]) != 0 || sum(looks[52:100]) < 48 || sum(looks[102:]) != 0 {
		t.Errorf("looks: quiet %d, busy %d, quiet again %d", sum(looks[2:50]), sum(looks[52:100]), sum(looks[102:]))
	}
}
