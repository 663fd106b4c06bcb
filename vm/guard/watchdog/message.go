package watchdog

// request is one packet of an agent, in JSON. Fields are added, never changed.
type request struct {
	// Watch is the configuration file of a guard to look after. Empty: only tell.
	Watch string `json:"watch,omitempty"`
}

// State is what a keeper answers.
type State struct {
	Device         string  `json:"device"`
	Armed          bool    `json:"armed"`
	Guests         int     `json:"guests"`          // looked after
	TimeoutSeconds float64 `json:"timeout_seconds"` // of the device; 0: it was not opened yet
	LateSeconds    float64 `json:"late_seconds"`    // how much too late the device would fire
	NoWayOut       bool    `json:"no_way_out"`      // it cannot be disarmed any more
	Feeds          uint64  `json:"feeds"`
	Failure        string  `json:"failure,omitempty"` // of the device
	Refused        string  `json:"refused,omitempty"` // why the guard in question is not looked after
}

// maxPacket bounds a packet either way.
const maxPacket = 8 << 10
