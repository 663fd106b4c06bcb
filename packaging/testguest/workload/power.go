package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// From the kernel's input-event-codes.h.
const (
	eventKey  = 1
	keyPower  = 116
	eventSize = 24 // of struct input_event on 64 bits
)

// power takes orders to end the machine; the steps look at them between two.
type power struct{ orders chan int }

func (p power) off()    { p.order(unix.LINUX_REBOOT_CMD_POWER_OFF) }
func (p power) reboot() { p.order(unix.LINUX_REBOOT_CMD_RESTART) }

// order leaves an order. The first one counts.
func (p power) order(command int) {
	select {
	case p.orders <- command:
	default:
	}
}

// watchButton shuts the guest down when its power button is pressed.
func (p power) watchButton() {
	devices, err := filepath.Glob("/dev/input/event*")
	if err != nil || len(devices) == 0 {
		fmt.Println("workload: there is no power button")
		return
	}
	for _, device := range devices {
		file, err := os.Open(device)
		if err != nil {
			fmt.Println("workload:", err)
			continue
		}
		go func() {
			event := make([]byte, eventSize)
			for {
				if _, err := file.Read(event); err != nil {
					return
				}
				kind, code, value := binary.LittleEndian.Uint16(event[16:]), binary.LittleEndian.Uint16(event[18:]), binary.LittleEndian.Uint32(event[20:])
				if kind == eventKey && code == keyPower && value == 1 {
					p.off()
				}
			}
		}()
	}
}

// shutDown ends the machine and does not return unless it cannot.
func shutDown(command int) error {
	fmt.Println("workload: shutting down")
	unix.Sync()
	return unix.Reboot(command)
}

func panicKernel() {
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		fmt.Println("workload: panic:", err)
	}
	time.Sleep(time.Hour)
}
