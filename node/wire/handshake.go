package wire

import (
	"errors"
	"fmt"
)

// Version is the wire version of this build, MinVersion the oldest it still
// speaks: always one back.
//
//	1  the first
//	2  lease connections have short forms of repeated messages
const (
	Version    = 2
	MinVersion = 1
)

const magic = "vmctl"

// The kinds of the handshake.
const (
	kindHello   Kind = 1
	kindWelcome Kind = 2
	kindRefused Kind = 3
)

// Errors of the handshake.
var (
	ErrVersion = errors.New("no wire version in common")
	ErrRefused = errors.New("the other end refused the connection")
)

// Hello opens every connection: who speaks, for which cluster, and what the
// connection is for.
type Hello struct {
	Magic      string `msgpack:"magic"`
	Version    int    `msgpack:"version"`
	MinVersion int    `msgpack:"min_version"`
	Cluster    string `msgpack:"cluster"`
	Node       string `msgpack:"node"`
	Purpose    string `msgpack:"purpose"`
	Guest      string `msgpack:"guest,omitempty"`
}

// Welcome answers a Hello that was taken.
type Welcome struct {
	Version int    `msgpack:"version"`
	Node    string `msgpack:"node"`
}

// Refused answers a Hello that was not. Code is one of the API's error codes,
// so that a refusal by the far end reads like one of the near end.
type Refused struct {
	Code    string `msgpack:"code"`
	Message string `msgpack:"message"`
}

func (r *Refused) Error() string { return r.Message }

// Unwrap makes errors.Is(err, ErrRefused) true.
func (r *Refused) Unwrap() error { return ErrRefused }

// Greet opens a connection from the dialling side and returns the version both
// speak. A refusal comes back as *Refused.
func Greet(c *Conn, hello Hello) (Welcome, error) {
	hello.Magic, hello.Version, hello.MinVersion = magic, Version, MinVersion
	if err := c.Send(kindHello, hello); err != nil {
		return Welcome{}, err
	}
	kind, body, err := c.Receive()
	if err != nil {
		return Welcome{}, fmt.Errorf("handshake for %s: %w", hello.Purpose, err)
	}
	switch kind {
	case kindWelcome:
		var welcome Welcome
		if err := Decode(body, &welcome); err != nil {
			return Welcome{}, err
		}
		if welcome.Version < MinVersion || welcome.Version > Version {
			return Welcome{}, fmt.Errorf("handshake: the other end chose version %d, we speak %d to %d: %w", welcome.Version, MinVersion, Version, ErrVersion)
		}
		c.version = welcome.Version
		return welcome, nil
	case kindRefused:
		refused := new(Refused)
		if err := Decode(body, refused); err != nil {
			return Welcome{}, err
		}
		return Welcome{}, fmt.Errorf("handshake for %s: %w", hello.Purpose, refused)
	}
	return Welcome{}, fmt.Errorf("handshake: unexpected frame of kind %d: %w", kind, ErrMalformed)
}

// Accept answers the Hello of a connection that came in. check decides on
// everything but magic and version; its error goes to the other end as a
// refusal and is returned.
func Accept(c *Conn, self string, check func(Hello) error) (Hello, error) {
	kind, body, err := c.Receive()
	if err != nil {
		return Hello{}, fmt.Errorf("handshake: %w", err)
	}
	var hello Hello
	if kind != kindHello {
		return Hello{}, fmt.Errorf("handshake: frame of kind %d instead of a hello: %w", kind, ErrMalformed)
	}
	if err := Decode(body, &hello); err != nil {
		return Hello{}, err
	}
	if hello.Magic != magic {
		return Hello{}, fmt.Errorf("handshake: not a vmctl node: %w", ErrMalformed)
	}
	version, err := commonVersion(hello)
	if err == nil {
		err = check(hello)
	}
	if err != nil {
		refused := new(Refused)
		if !errors.As(err, &refused) {
			refused = &Refused{Code: "refused", Message: err.Error()}
		}
		if sendErr := c.Send(kindRefused, refused); sendErr != nil {
			return hello, errors.Join(err, sendErr)
		}
		return hello, err
	}
	c.version = version
	return hello, c.Send(kindWelcome, Welcome{Version: version, Node: self})
}

func commonVersion(hello Hello) (int, error) {
	version := min(Version, hello.Version)
	if version < MinVersion || version < hello.MinVersion {
		return 0, fmt.Errorf("handshake: node %q speaks wire versions %d to %d, this node %d to %d; upgrade the older one: %w",
			hello.Node, hello.MinVersion, hello.Version, MinVersion, Version, ErrVersion)
	}
	return version, nil
}
