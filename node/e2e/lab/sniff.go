package lab

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// sniff opens a packet socket on one port of the switch.
func (l *Lab) sniff(port string) (fd int, err error) {
	err = l.inSwitch(func() error {
		index, err := linkIndex(port)
		if err == nil {
			fd, err = sniffer(index)
		}
		return err
	})
	return fd, err
}

// sniffer opens a packet socket on one network device: for all protocols, since a
// bridge takes its ports' packets before a socket for one protocol sees them. It
// is made for none: until it is bound it would hear every device.
func sniffer(index int) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("open a packet socket: %w", err)
	}
	timeout := unix.Timeval{Usec: 100_000}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, onlyUDP()),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}),
	)
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("listen on network device %d: %w", index, err)
	}
	return fd, nil
}

// onlyUDP drops everything but UDP over IPv4: replication fills the same ports.
func onlyUDP() *unix.SockFprog {
	load := func(code uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | code, K: at}
	}
	equal := func(value uint32, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: otherwise}
	}
	program := []unix.SockFilter{
		load(unix.BPF_H, 12), equal(unix.ETH_P_IP, 3),
		load(unix.BPF_B, 14+9), equal(unix.IPPROTO_UDP, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	return &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// recordOf takes the UDP payload out of an Ethernet frame to the record port.
func recordOf(frame []byte) []byte {
	const ethernet = 14
	if len(frame) < ethernet+20+8 || frame[12] != 8 || frame[13] != 0 || frame[ethernet]>>4 != 4 || frame[ethernet+9] != unix.IPPROTO_UDP {
		return nil
	}
	header := int(frame[ethernet]&15) * 4
	udp := frame[ethernet+header:]
	if len(udp) < 8 || int(udp[2])<<8|int(udp[3]) != recordPort {
		return nil
	}
	length := int(udp[4])<<8 | int(udp[5])
	if length < 8 || length > len(udp) {
		return nil
	}
	return udp[8:length]
}

func linkIndex(name string) (int, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return link.Index, nil
}
