package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("burden:", err)
		os.Exit(1)
	}
}

// Result is what one request has done.
type Result struct {
	Took []float64 `json:"took"` // microseconds of each operation, by the guest's clock
}

func run() error {
	b := &burden{}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answer(w, Result{}, nil) })
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		result, err := b.write(number(r, "size"), number(r, "depth"), r.FormValue("random") == "true", seconds(r))
		answer(w, result, err)
	})
	mux.HandleFunc("/sqlite", func(w http.ResponseWriter, r *http.Request) {
		result, err := b.transactions(seconds(r))
		answer(w, result, err)
	})
	mux.HandleFunc("/dirty", func(w http.ResponseWriter, r *http.Request) {
		answer(w, Result{}, b.dirty(number(r, "memory"), number(r, "rate")))
	})
	mux.HandleFunc("/poweroff", func(w http.ResponseWriter, _ *http.Request) { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) })
	return http.ListenAndServe(":80", mux)
}

// burden keeps what one request leaves for the next.
type burden struct {
	sqlite *sqlite
	writer *dirtier
}

// number reads a parameter; one that is no number is 0.
func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.FormValue(name))
	return n
}

func seconds(r *http.Request) time.Duration {
	s, _ := strconv.ParseFloat(r.FormValue("seconds"), 64)
	return time.Duration(s * float64(time.Second))
}

func answer(w http.ResponseWriter, result Result, err error) {
	if err != nil {
		fmt.Println("burden:", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(result)
}
