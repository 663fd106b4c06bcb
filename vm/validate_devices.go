package vm

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
)

var (
	diskForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,19}$`)
	interfaceForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
)

func (s Spec) checkDisks(f *findings) {
	if len(s.Disks) > MaxDisks {
		f.add("%d disks: at most %d", len(s.Disks), MaxDisks)
	}
	names, paths := map[string]bool{}, map[string]bool{}
	for i, d := range s.Disks {
		// The name is the disk's file name and its serial number, of which a
		// guest sees 20 characters.
		if !diskForm.MatchString(d.Name) {
			f.add("disk %d: name %q: use 1 to 20 of a-z, 0-9 and '-'", i, d.Name)
		} else if names[d.Name] {
			f.add("disk %q is listed twice", d.Name)
		}
		names[d.Name] = true
		if d.Path != "" && paths[d.Path] {
			f.add("disk %q: path %q is another disk's already", d.Name, d.Path)
		}
		paths[d.Path] = true
		d.check(f)
	}
}

func (d Disk) check(f *findings) {
	if d.Format != FormatRaw && d.Format != FormatQcow2 {
		f.add("disk %q: format %q: use raw or qcow2", d.Name, d.Format)
	}
	checkPath(f, fmt.Sprintf("disk %q: image", d.Name), d.Image)
	checkPath(f, fmt.Sprintf("disk %q: path", d.Name), d.Path)
	switch {
	case d.Path != "" && (d.Image != "" || d.Size != 0 || d.Preallocate):
		f.add("disk %q: path is an existing disk, it takes no image, size or preallocate", d.Name)
	case d.Path == "" && d.Image == "" && d.Size == 0:
		f.add("disk %q: give a size, an image or a path", d.Name)
	case d.Size != 0 && (d.Size < MiB || d.Size%512 != 0 || d.Size > PiB):
		f.add("disk %q: size %v: use at least 1M, a multiple of 512 bytes", d.Name, d.Size)
	}
}

func (s Spec) checkNICs(f *findings) {
	if len(s.NICs) > MaxNICs {
		f.add("%d nics: at most %d", len(s.NICs), MaxNICs)
	}
	macs, taps, ports := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, n := range s.NICs {
		mac, err := net.ParseMAC(n.MAC)
		switch {
		case err != nil || len(mac) != 6 || mac.String() != strings.ToLower(n.MAC):
			f.add("nic %d: mac %q is not of the form 52:54:00:12:34:56", i, n.MAC)
		case mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)):
			f.add("nic %d: mac %q is not the address of one card", i, n.MAC)
		case macs[mac.String()]:
			f.add("nic %d: mac %q is another nic's already", i, n.MAC)
		default:
			macs[mac.String()] = true
		}
		n.check(f, i)
		if n.Tap != "" && taps[n.Tap] {
			f.add("nic %d: tap %q is another nic's already", i, n.Tap)
		}
		taps[n.Tap] = true
		for _, text := range n.Forward {
			forward, err := ParseForward(text)
			if err != nil {
				f.add("nic %d: %v", i, err)
				continue
			}
			host := fmt.Sprintf("%s %v", forward.Protocol, forward.Host)
			if ports[host] {
				f.add("nic %d: forward %q: the host's port is forwarded twice", i, text)
			}
			ports[host] = true
		}
	}
}

func (n NIC) check(f *findings, i int) {
	needs := map[string]bool{"bridge": n.Type == NICBridge, "tap": n.Type == NICTap}
	switch n.Type {
	case NICUser, NICBridge, NICTap:
	default:
		f.add("nic %d: type %q: use user, bridge or tap", i, n.Type)
		return
	}
	for _, link := range []struct{ field, name string }{{"bridge", n.Bridge}, {"tap", n.Tap}} {
		switch {
		case needs[link.field] && link.name == "":
			f.add("nic %d: type %s needs %s: the name of an interface of the host", i, n.Type, link.field)
		case !needs[link.field] && link.name != "":
			f.add("nic %d: type %s takes no %s", i, n.Type, link.field)
		case link.name != "" && !interfaceForm.MatchString(link.name):
			f.add("nic %d: %s %q is not the name of an interface", i, link.field, link.name)
		}
	}
	if len(n.Forward) > 0 && n.Type != NICUser {
		f.add("nic %d: forward is for type user; on a %s the guest has its own address", i, n.Type)
	}
}

// Forward is a port of the host that leads into a guest.
type Forward struct {
	Protocol string         // tcp or udp
	Host     netip.AddrPort // where the host listens, IPv4
	Guest    uint16         // port in the guest
}

// ParseForward reads "tcp:127.0.0.1:8080:80": protocol, address and port of
// the host, port of the guest.
func ParseForward(text string) (Forward, error) {
	bad := func(why string) (Forward, error) {
		return Forward{}, fmt.Errorf("forward %q: %s; write tcp:127.0.0.1:8080:80", text, why)
	}
	parts := strings.Split(text, ":")
	if len(parts) != 4 {
		return bad("four parts are needed")
	}
	if parts[0] != "tcp" && parts[0] != "udp" {
		return bad("the protocol is tcp or udp")
	}
	address, err := netip.ParseAddr(parts[1])
	if err != nil || !address.Is4() {
		return bad("the host's address is not an IPv4 address (0.0.0.0 is all)")
	}
	host, errHost := strconv.ParseUint(parts[2], 10, 16)
	guest, errGuest := strconv.ParseUint(parts[3], 10, 16)
	if errHost != nil || errGuest != nil || host == 0 || guest == 0 {
		return bad("a port is 1 to 65535")
	}
	return Forward{parts[0], netip.AddrPortFrom(address, uint16(host)), uint16(guest)}, nil
}

// checkFiles looks at the files that the spec names on this host.
func (s Spec) checkFiles(f *findings) {
	checkFile(f, "kernel", s.Kernel)
	checkFile(f, "initrd", s.Initrd)
	for _, d := range s.Disks {
		checkFile(f, fmt.Sprintf("disk %q: image", d.Name), d.Image)
		magic := checkFile(f, fmt.Sprintf("disk %q: path", d.Name), d.Path)
		// A qcow2 opened as raw shows the guest garbage. The other way round
		// would let a guest write a header that names a file of the host.
		if isQcow2 := bytes.Equal(magic, []byte("QFI\xfb")); magic != nil && isQcow2 != (d.Format == FormatQcow2) {
			f.add("disk %q: path %q is not in format %s", d.Name, d.Path, d.Format)
		}
	}
}

// checkFile returns the first four bytes of a readable regular file.
func checkFile(f *findings, field, path string) []byte {
	if path == "" {
		return nil
	}
	// Asked before it is opened: to open a pipe would wait for its other end.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a file", path)
	}
	if err != nil {
		f.add("%s: %v", field, err)
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		f.add("%s: %v", field, err)
		return nil
	}
	defer file.Close()
	magic := make([]byte, 4)
	n, err := io.ReadFull(file, magic)
	if err != nil && n == 0 {
		f.add("%s: %q is empty", field, path)
		return nil
	}
	return magic[:n]
}
