package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What can go wrong. Test with errors.Is.
var (
	// ErrNoBridge: the host has no bridge of that name.
	ErrNoBridge = errors.New("no such bridge")
	// ErrNoTap: the host has no tap of that name.
	ErrNoTap = errors.New("no such tap")
	// ErrInUse: a running program has the tap open.
	ErrInUse = errors.New("tap is in use")
)

const prefix = "vmc"

var ours = regexp.MustCompile(`^` + prefix + `[0-9a-f]{8}n[0-9]{1,2}$`)

// TapName names the tap of a guest's i-th card: at most 14 characters, of
// which the kernel takes 15.
func TapName(uuid string, i int) string {
	return prefix + uuid[:min(8, len(uuid))] + "n" + strconv.Itoa(i)
}

// Attach makes the tap and joins it to the bridge. guestMAC is the address of
// the card; the tap takes the same with first byte fe, higher than those of
// real cards, so that the bridge goes on to use one of them.
func Attach(tap, bridge, guestMAC string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("attach tap %s to bridge %s: %w", tap, bridge, err)
		}
	}()
	if !ours.MatchString(tap) {
		return errors.New("not a name given by this program")
	}
	mac, err := net.ParseMAC(guestMAC)
	if err != nil {
		return err
	}
	if len(mac) != 6 {
		return fmt.Errorf("%q is not the MAC address of a card", guestMAC)
	}
	master, err := findBridge(bridge)
	if err != nil {
		return err
	}
	mac[0] = 0xfe
	if err := keepAddress(master, mac); err != nil {
		return err
	}
	if err := remake(tap); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Remove(tap))
		}
	}()
	return join(tap, master, mac)
}

// keepAddress pins the address of a bridge that would take its first tap's: one
// without ports, or whose ports all have higher addresses. Guests remember the one
// they knew; and the tap of a guest has the same address on both hosts, where each
// bridge keeps what is for its own ports to itself: a bridge with that address
// could not be reached from the other host.
func keepAddress(bridge netlink.Link, tap net.HardwareAddr) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list the ports: %w", err)
	}
	for _, link := range links {
		if a := link.Attrs(); a.MasterIndex == bridge.Attrs().Index && !ours.MatchString(a.Name) && bytes.Compare(a.HardwareAddr, tap) < 0 {
			return nil
		}
	}
	if err := netlink.LinkSetHardwareAddr(bridge, bridge.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("keep the bridge's address: %w", err)
	}
	return nil
}

func join(tap string, master netlink.Link, mac net.HardwareAddr) error {
	link, err := netlink.LinkByName(tap)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("set its address: %w", err)
	}
	// A bridge takes the smallest MTU of its ports.
	if err := netlink.LinkSetMTU(link, master.Attrs().MTU); err != nil {
		return fmt.Errorf("set its MTU: %w", err)
	}
	if err := netlink.LinkSetMaster(link, master); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// SetLink takes a tap made by Attach up or down. One that is down queues nothing
// for a program that does not read yet.
func SetLink(tap string, up bool) error {
	if !ours.MatchString(tap) {
		return fmt.Errorf("set link of tap %s: not a name given by this program", tap)
	}
	link, err := netlink.LinkByName(tap)
	set := netlink.LinkSetDown
	if up {
		set = netlink.LinkSetUp
	}
	if err == nil {
		err = set(link)
	}
	if err != nil {
		return fmt.Errorf("set link of tap %s: %w", tap, err)
	}
	return nil
}

// Remove deletes a tap made by Attach. One that is gone is no error.
func Remove(tap string) error {
	if !ours.MatchString(tap) {
		return fmt.Errorf("remove tap %s: not a name given by this program", tap)
	}
	link, err := netlink.LinkByName(tap)
	if missing(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !missing(err) {
		return fmt.Errorf("remove tap %s: %w", tap, err)
	}
	return nil
}

// CheckBridge says whether the host has the bridge.
func CheckBridge(name string) error {
	_, err := findBridge(name)
	return err
}

// CheckTap says whether the host has a tap, made by its administrator.
func CheckTap(name string) error {
	link, err := netlink.LinkByName(name)
	if missing(err) {
		return fmt.Errorf("%w: %s: make it with \"ip tuntap add %s mode tap vnet_hdr\"", ErrNoTap, name, name)
	}
	if err != nil {
		return fmt.Errorf("look up tap %s: %w", name, err)
	}
	if tap, ok := link.(*netlink.Tuntap); !ok || tap.Mode != netlink.TUNTAP_MODE_TAP {
		return fmt.Errorf("%w: %s is a %s", ErrNoTap, name, link.Type())
	}
	return nil
}

func findBridge(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if missing(err) {
		return nil, fmt.Errorf("%w: %s: make it with \"ip link add %s type bridge\" and set it up", ErrNoBridge, name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("look up bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return nil, fmt.Errorf("%w: %s is a %s", ErrNoBridge, name, link.Type())
	}
	return link, nil
}

func missing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}

// remake makes the tap, after removing one that nobody has open.
func remake(name string) error {
	if _, err := netlink.LinkByName(name); err == nil {
		if err := hold(name, false); err != nil {
			return err
		}
		if err := Remove(name); err != nil {
			return err
		}
	} else if !missing(err) {
		return err
	}
	return hold(name, true)
}

// hold takes hold of a tap for a moment: with persist it exists from then on.
// The header is what virtio-net needs for checksum and segmentation offload.
func hold(name string, persist bool) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return ErrInUse
		}
		return fmt.Errorf("take hold of it: %w", err)
	}
	if !persist {
		return nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep it: %w", err)
	}
	return nil
}
