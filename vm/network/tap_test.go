package network

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	testUUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
	testMAC  = "52:54:00:12:34:56"
)

// ownNetwork gives the test a network namespace with a bridge br0. The thread
// is never unlocked, so it ends with the test and takes the namespace along.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", MTU: 1400}}
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
		t.Fatal(err)
	}
}

func mustLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestTapName(t *testing.T) {
	for i, want := range map[int]string{0: "vmc1b4e28ban0", 11: "vmc1b4e28ban11"} {
		if got := TapName(testUUID, i); got != want || len(got) > 15 || !ours.MatchString(got) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAttachAndRemove(t *testing.T) {
	ownNetwork(t)
	tap := TapName(testUUID, 0)
	bridgeMAC := mustLink(t, "br0").Attrs().HardwareAddr.String()
	for range 2 { // the second time over what is left of the first
		if err := Attach(tap, "br0", testMAC); err != nil {
			t.Fatal(err)
		}
		link := mustLink(t, tap).(*netlink.Tuntap)
		attrs := link.Attrs()
		if attrs.MasterIndex != mustLink(t, "br0").Attrs().Index || attrs.Flags&net.FlagUp == 0 || attrs.MTU != 1400 ||
			attrs.HardwareAddr.String() != "fe:54:00:12:34:56" {
			t.Errorf("tap: %+v", attrs)
		}
		if link.Mode != netlink.TUNTAP_MODE_TAP || link.NonPersist {
			t.Errorf("mode %v, not persistent %v", link.Mode, link.NonPersist)
		}
	}
	if now := mustLink(t, "br0").Attrs().HardwareAddr.String(); now != bridgeMAC {
		t.Errorf("the bridge changed its address from %s to %s", bridgeMAC, now)
	}
	if err := CheckTap(tap); err != nil {
		t.Error(err)
	}
	for _, up := range []bool{false, true} {
		if err := SetLink(tap, up); err != nil || (mustLink(t, tap).Attrs().Flags&net.FlagUp != 0) != up {
			t.Errorf("link set up %v: %v, %v", up, err, mustLink(t, tap).Attrs().Flags)
		}
	}
	for range 2 {
		if err := Remove(tap); err != nil {
			t.Error(err)
		}
	}
	if _, err := netlink.LinkByName(tap); err == nil {
		t.Error("the tap is still there")
	}
}

// Of two hosts each has a bridge with the tap of the same guest: neither bridge may
// take the tap's address, whatever the addresses of its other ports are.
func TestBridgeKeepsItsAddress(t *testing.T) {
	ownNetwork(t)
	port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: net.HardwareAddr{0xfe, 0xff, 0xff, 0, 0, 1}}, PeerName: "far0"}
	if err := errors.Join(netlink.LinkAdd(port), netlink.LinkSetMaster(port, mustLink(t, "br0")), netlink.LinkSetUp(port)); err != nil {
		t.Fatal(err)
	}
	before := mustLink(t, "br0").Attrs().HardwareAddr.String()
	if err := Attach(TapName(testUUID, 0), "br0", testMAC); err != nil {
		t.Fatal(err)
	}
	if now := mustLink(t, "br0").Attrs().HardwareAddr.String(); now != before {
		t.Errorf("the bridge had %s, and took %s", before, now)
	}
}

func TestAttachFails(t *testing.T) {
	ownNetwork(t)
	dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy0"}}
	if err := netlink.LinkAdd(dummy); err != nil {
		// Not every kernel has it; any other interface will do.
		dummy.Name = "lo"
	}
	tap := TapName(testUUID, 0)
	tests := map[string]struct {
		tap, bridge, mac string
		is               error
		says             string
	}{
		"no bridge":    {tap, "br7", testMAC, ErrNoBridge, `make it with "ip link add br7 type bridge"`},
		"not a bridge": {tap, dummy.Name, testMAC, ErrNoBridge, dummy.Name + " is a"},
		"not our name": {"eth0", "br0", testMAC, nil, "not a name given"},
		"bad mac":      {tap, "br0", "x", nil, "invalid MAC"},
		"long mac":     {tap, "br0", "52:54:00:12:34:56:00:00", nil, "MAC address"},
	}
	for name, test := range tests {
		err := Attach(test.tap, test.bridge, test.mac)
		if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := netlink.LinkByName(tap); err == nil {
			t.Errorf("%s: the tap is left", name)
		}
	}
	if err := Remove("br0"); err == nil {
		t.Error("removed an interface of somebody else")
	}
	if SetLink("br0", false) == nil || SetLink(tap, true) == nil {
		t.Error("set the link of an interface of somebody else, or of none")
	}
	if err := CheckBridge("br0"); err != nil {
		t.Error(err)
	}
	if err := CheckTap("br0"); !errors.Is(err, ErrNoTap) {
		t.Errorf("a bridge taken for a tap: %v", err)
	}
	if err := CheckTap("tap7"); !errors.Is(err, ErrNoTap) {
		t.Errorf("a missing tap: %v", err)
	}
}

// QEMU opens the tap by its name; while it does, nobody else gets it.
func TestQEMUOpensTap(t *testing.T) {
	ownNetwork(t)
	tap := TapName(testUUID, 1)
	if err := Attach(tap, "br0", testMAC); err != nil {
		t.Fatal(err)
	}
	qemu := exec.Command("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-machine", "pc-q35-7.2", "-accel", "tcg",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-netdev", "tap,id=n0,ifname="+tap+",script=no,downscript=no,vhost=off", "-device", "virtio-net-pci,netdev=n0,romfile=")
	qemu.Stderr = os.Stderr
	if err := qemu.Start(); err != nil { // in this thread's namespace
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if mustLink(t, tap).Attrs().OperState == netlink.OperUp {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("QEMU does not open the tap")
		}
	}
	if err := Attach(tap, "br0", testMAC); !errors.Is(err, ErrInUse) {
		t.Errorf("attach of a tap in use: %v", err)
	}
	if err := qemu.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = qemu.Wait()
	if _, err := netlink.LinkByName(tap); err != nil {
		t.Errorf("the tap went with QEMU: %v", err)
	}
	if err := Attach(tap, "br0", testMAC); err != nil {
		t.Errorf("attach of a tap that was left: %v", err)
	}
}
