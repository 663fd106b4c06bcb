package watchdog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"vmctl/vm/guard"
)

// openAgain is how long to wait after the device could not be opened or fed.
const openAgain = time.Second

// lastMoment is how long before feeding has to stop it is fed once more.
const lastMoment = 2 * time.Millisecond

// Config is how a keeper is started.
type Config struct {
	Device string
	Socket string        // where agents find it
	Stop   time.Duration // D: what a takeover allows for stopping a guest
	Open   func(path string) (Device, error)
	Log    *slog.Logger
}

// keeper's fields belong to the goroutine of run, but for the channels.
type keeper struct {
	config  Config
	tasks   sync.WaitGroup
	reports chan report
	added   chan *guard.Client
	asked   chan chan State
	agents  chan int // one came (1), one left (-1)

	guests map[int]watched
	launch map[string]int // launch ids of the guests
	serial int
	joined int // agents

	device Device
	timing timing
	fed    int64 // when; 0: not yet
	feeds  uint64
	failed string
	retry  int64 // no use of the device before
}

// report is what a guard said, or that its QEMU is gone.
type report struct {
	id   int
	gone bool
	watched
}

func newKeeper(c Config) *keeper {
	return &keeper{
		config: c, reports: make(chan report), added: make(chan *guard.Client), asked: make(chan chan State), agents: make(chan int),
		guests: map[int]watched{}, launch: map[string]int{},
		// Until the device has told its own.
		timing: timingOf(time.Second, c.Stop),
	}
}

// run keeps the device until nobody needs it: no guest is looked after, and no agent
// is there or stop is closed. The device is disarmed then.
func (k *keeper) run(ctx context.Context, stop <-chan struct{}) {
	wake := time.NewTimer(0)
	defer wake.Stop()
	stopping := false
	patience := time.After(openAgain) // for the first agent
	for waiting := true; ; {
		k.act(guard.Now())
		if len(k.guests) == 0 && k.device == nil && (stopping || k.joined == 0 && !waiting) {
			return
		}
		wake.Reset(k.next(guard.Now()))
		select {
		case r := <-k.reports:
			k.take(r)
		case c := <-k.added:
			k.add(ctx, c)
		case answer := <-k.asked:
			answer <- k.state()
		case n := <-k.agents:
			k.joined += n
			waiting = false
		case <-patience:
			waiting = false
		case <-stop:
			stop, stopping = nil, true
		case <-wake.C:
		}
	}
}

// act does what is due to the device.
func (k *keeper) act(now int64) {
	until, leased := fedUntil(k.guests, k.timing)
	switch {
	case k.device == nil && (!leased || now > until || now < k.retry):
		return
	case k.device == nil:
		k.open(now)
	case !leased && k.device.CanDisarm():
		k.disarm(now)
		return
	}
	due := now >= k.fed+k.interval() || now >= until-int64(lastMoment) && k.fed < until-int64(lastMoment)
	if k.device == nil || now > until || !due {
		return
	}
	if err := k.device.Feed(); err != nil {
		k.fail(err)
		return
	}
	k.fed, k.failed = now, ""
	k.feeds++
}

func (k *keeper) interval() int64 { return k.timing.timeout / 5 }

func (k *keeper) open(now int64) {
	device, err := k.config.Open(k.config.Device)
	if err != nil {
		k.retry = now + int64(openAgain)
		k.fail(err)
		return
	}
	k.device, k.fed, k.failed = device, 0, ""
	k.timing = timingOf(device.Timeout(), k.config.Stop)
	k.config.Log.Info("watchdog armed", "device", k.config.Device, "timeout", device.Timeout(), "late", time.Duration(k.timing.late))
}

func (k *keeper) disarm(now int64) {
	if err := k.device.Disarm(); err != nil {
		k.retry = now + int64(openAgain)
		k.fail(err)
	} else {
		k.config.Log.Info("watchdog disarmed", "device", k.config.Device)
	}
	k.device = nil
}

func (k *keeper) fail(err error) {
	if k.failed != err.Error() {
		k.config.Log.Error("the watchdog does not work", "device", k.config.Device, "error", err)
	}
	k.failed = err.Error()
}

// next is when act has to be called again if nothing happens before.
func (k *keeper) next(now int64) time.Duration {
	until, _ := fedUntil(k.guests, k.timing)
	at := now + k.interval()
	if last := until - int64(lastMoment); last > now {
		at = min(at, last)
	}
	return time.Duration(at - now)
}

func (k *keeper) take(r report) {
	if !r.gone {
		k.guests[r.id] = r.watched
		return
	}
	delete(k.guests, r.id)
	for launch, id := range k.launch {
		if id == r.id {
			delete(k.launch, launch)
		}
	}
}

// add looks after a guest; twice the same is once.
func (k *keeper) add(ctx context.Context, c *guard.Client) {
	if _, known := k.launch[c.Launch().ID]; known {
		_ = c.Close()
		return
	}
	k.serial++
	id := k.serial
	k.launch[c.Launch().ID] = id
	k.guests[id] = watched{deadline: guard.Forever} // its first report is on its way
	k.tasks.Go(func() { k.follow(ctx, id, c) })
}

func (k *keeper) state() State {
	s := State{Device: k.config.Device, Armed: k.device != nil, Guests: len(k.guests), Feeds: k.feeds, Failure: k.failed}
	if k.device != nil {
		s.TimeoutSeconds, s.LateSeconds = float64(k.timing.timeout)/1e9, float64(k.timing.late)/1e9
		s.NoWayOut = !k.device.CanDisarm()
	}
	return s
}
