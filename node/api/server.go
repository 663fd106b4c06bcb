package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"vmctl/vm"
)

// maxBody bounds what a request may send: a spec is a few kilobytes.
const maxBody = 1 << 20

// forwarded marks a request that has come from the peer's agent, so that it is
// never passed on again.
const forwarded = "Vmctl-Forwarded-By"

// Backend is everything the server calls.
type Backend struct {
	Node      string
	Machines  Machines
	Operator  Operator
	Clusters  Clusters
	Witnesses Witnesses
	Observer  Observer
	Hosts     Hosts
	Thirds    Thirds
	Verifier  Verifier
	Resizer   Resizer
	Router    Router
	Log       *slog.Logger
}

// Handler serves the API.
func (b *Backend) Handler() http.Handler {
	mux := http.NewServeMux()
	b.nodeRoutes(mux)
	b.machineRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		b.fail(w, r, Errorf(NotFound, "no such call: %s %s", r.Method, r.URL.Path))
	})
	return b.contained(mux)
}

// contained keeps a defect in one call from being more than that call's
// failure.
func (b *Backend) contained(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { // an answer that cannot be completed
				panic(p)
			}
			b.Log.Error("a call failed by a defect of the agent", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			b.fail(w, r, Errorf(Failed, "%s %s: a defect of the agent; its log says more", r.Method, r.URL.Path))
		}()
		next.ServeHTTP(w, r)
	})
}

func (b *Backend) nodeRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/status", reply(b, func(r *http.Request) (any, error) { return b.Observer.Status(r.Context()) }))
	mux.HandleFunc("GET /v1/ha", reply(b, func(r *http.Request) (any, error) { return b.Observer.HA(r.Context()) }))
	mux.HandleFunc("GET /v1/ha/{vm}", reply(b, func(r *http.Request) (any, error) {
		return b.Observer.Why(r.Context(), r.PathValue("vm"))
	}))
	mux.HandleFunc("POST /v1/ha/{vm}/promote", reply(b, b.promote))
	mux.HandleFunc("GET /v1/events", b.events)
	mux.HandleFunc("POST /v1/node/maintenance", reply(b, func(r *http.Request) (any, error) {
		var in struct{ On bool }
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		return b.Hosts.Maintenance(r.Context(), in.On)
	}))
	mux.HandleFunc("POST /v1/node/shutdown", reply(b, func(r *http.Request) (any, error) { return b.Hosts.Shutdown(r.Context()) }))
	mux.HandleFunc("POST /v1/node/notify-test", reply(b, func(r *http.Request) (any, error) { return b.Hosts.NotifyTest(r.Context()) }))
	mux.HandleFunc("GET /v1/cluster", reply(b, func(r *http.Request) (any, error) { return b.Clusters.Cluster(r.Context()) }))
	mux.HandleFunc("POST /v1/cluster/init", reply(b, func(r *http.Request) (any, error) {
		var in struct{ Name string }
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		return b.Clusters.Init(r.Context(), in.Name)
	}))
	mux.HandleFunc("POST /v1/cluster/token", reply(b, func(r *http.Request) (any, error) { return b.Clusters.NewToken(r.Context()) }))
	mux.HandleFunc("POST /v1/cluster/join", reply(b, func(r *http.Request) (any, error) {
		var in struct{ Addr, Token string }
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		return b.Clusters.Join(r.Context(), in.Addr, in.Token)
	}))
	mux.HandleFunc("DELETE /v1/cluster", reply(b, func(r *http.Request) (any, error) { return nil, b.Clusters.Leave(r.Context()) }))
	mux.HandleFunc("PUT /v1/cluster/mode", reply(b, func(r *http.Request) (any, error) {
		var in ModeChange
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		return b.Thirds.SetMode(r.Context(), in)
	}))
	mux.HandleFunc("POST /v1/cluster/fence/check", reply(b, func(r *http.Request) (any, error) { return b.Thirds.CheckFence(r.Context()) }))
	mux.HandleFunc("POST /v1/witness", reply(b, func(r *http.Request) (any, error) {
		var in struct{ Addr, Token string }
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		return b.Witnesses.AddWitness(r.Context(), in.Addr, in.Token)
	}))
	mux.HandleFunc("DELETE /v1/witness", reply(b, func(r *http.Request) (any, error) { return nil, b.Witnesses.RemoveWitness(r.Context()) }))
}

func (b *Backend) machineRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/vms", reply(b, func(r *http.Request) (any, error) { return b.Machines.List(r.Context()) }))
	mux.HandleFunc("POST /v1/vms", reply(b, func(r *http.Request) (any, error) {
		body, err := readBody(r)
		if err != nil {
			return nil, err
		}
		spec, err := vm.ParseSpec(body)
		if err != nil {
			return nil, err
		}
		return b.Machines.Create(r.Context(), spec, forced(r))
	}))
	mux.HandleFunc("GET /v1/vms/{vm}", b.atOwner(reply(b, func(r *http.Request) (any, error) {
		return b.Machines.Show(r.Context(), r.PathValue("vm"))
	})))
	mux.HandleFunc("PATCH /v1/vms/{vm}", b.atOwner(reply(b, func(r *http.Request) (any, error) {
		body, err := readBody(r)
		if err != nil {
			return nil, err
		}
		return b.Machines.Change(r.Context(), r.PathValue("vm"), body, forced(r))
	})))
	mux.HandleFunc("DELETE /v1/vms/{vm}", b.atOwner(reply(b, func(r *http.Request) (any, error) {
		return nil, b.Machines.Remove(r.Context(), r.PathValue("vm"), forced(r))
	})))
	mux.HandleFunc("DELETE /v1/vms/{vm}/kept/{epoch}", reply(b, func(r *http.Request) (any, error) {
		epoch, err := strconv.ParseUint(r.PathValue("epoch"), 10, 64)
		if err != nil {
			return nil, Errorf(Usage, "epoch %q is not a number", r.PathValue("epoch"))
		}
		return nil, b.Machines.RemoveKept(r.Context(), r.PathValue("vm"), epoch, r.URL.Query().Get("here") == "true")
	}))
	for _, verb := range []Verb{Start, Stop, Kill, Reset, Pause, Unpause} {
		mux.HandleFunc("POST /v1/vms/{vm}/"+string(verb), b.atOwner(reply(b, func(r *http.Request) (any, error) {
			bound, err := seconds(r, "timeout")
			if err != nil {
				return nil, err
			}
			return b.Operator.Act(r.Context(), r.PathValue("vm"), verb, Option{Bound: bound, Force: forced(r)})
		})))
	}
	mux.HandleFunc("POST /v1/vms/{vm}/disks/{disk}/resize", b.atOwner(reply(b, b.resizeDisk)))
	mux.HandleFunc("POST /v1/vms/{vm}/verify", b.atOwner(b.verify))
	mux.HandleFunc("POST /v1/vms/{vm}/console", b.atOwner(b.console))
	mux.HandleFunc("GET /v1/vms/{vm}/logs", b.atOwner(b.logs))
}

func (b *Backend) promote(r *http.Request) (any, error) {
	var in struct {
		ConfirmPeerOff bool `json:"confirm_peer_off"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	return b.Operator.Promote(r.Context(), r.PathValue("vm"), in.ConfirmPeerOff)
}

// reply makes a handler of a function that returns a value to encode.
func reply(b *Backend, serve func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := serve(r)
		if err != nil {
			b.fail(w, r, err)
			return
		}
		if value == nil {
			value = struct{}{}
		}
		body, err := json.Marshal(value)
		if err != nil {
			b.fail(w, r, Errorf(Failed, "encode the answer: %v", err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(append(body, '\n')); err != nil {
			b.Log.Debug("reply not delivered", "path", r.URL.Path, "error", err)
		}
	}
}

func (b *Backend) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := AsError(err)
	if r.Context().Err() != nil { // nobody listens, or everybody must be told
		e = Errorf(Unreachable, "%s %s: the agent is stopping", r.Method, r.URL.Path)
	}
	if errors.Is(err, vm.ErrBadSpec) {
		e = &Error{Code: Usage, Message: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.status())
	_ = json.NewEncoder(w).Encode(map[string]*Error{"error": e})
}

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, Errorf(Usage, "read the request: %v", err)
	}
	return body, nil
}

func readJSON(r *http.Request, v any) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return Errorf(Usage, "read the request: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Errorf(Usage, "read the request: there is more behind the JSON object")
	}
	return nil
}

func forced(r *http.Request) bool { return r.URL.Query().Get("force") == "true" }

func seconds(r *http.Request, name string) (time.Duration, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !(value >= 0 && value <= 86400) {
		return 0, Errorf(Usage, "%s: %q is not a number of seconds from 0 to 86400", name, text)
	}
	return time.Duration(value * float64(time.Second)), nil
}
