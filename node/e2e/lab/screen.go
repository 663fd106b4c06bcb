package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Screen is what a guest's screen shows: 32 bits a pixel, row by row.
type Screen struct {
	Width, Height int
	Pixels        []byte
}

// Colours is how many there are on it.
func (s Screen) Colours() int {
	seen := map[[4]byte]bool{}
	for at := 0; at+4 <= len(s.Pixels); at += 4 {
		seen[[4]byte(s.Pixels[at:])] = true
	}
	return len(seen)
}

// LookAt connects to a VNC socket, as a viewer does, and reads the whole screen
// (RFC 6143; no password, raw pixels).
func LookAt(ctx context.Context, socket string) (s Screen, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if s, err = readScreen(conn); err != nil {
		err = fmt.Errorf("look at the screen: %w", errors.Join(err, ctx.Err()))
	}
	return s, err
}

func readScreen(conn net.Conn) (s Screen, err error) {
	read := func(n int) []byte {
		data := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(conn, data)
		}
		return data
	}
	write := func(data ...byte) {
		if err == nil {
			_, err = conn.Write(data)
		}
	}
	word := func() int { return int(binary.BigEndian.Uint16(read(2))) }
	hello := read(12)
	write(hello...)
	read(int(read(1)[0])) // kinds of security
	write(1)              // none
	read(4)               // it is taken
	write(1)              // others may look too
	s.Width, s.Height = word(), word()
	format := read(16)
	read(int(binary.BigEndian.Uint32(read(4)))) // a name
	if err == nil && format[0] != 32 {
		err = fmt.Errorf("%d bits a pixel", format[0])
	}
	write(2, 0, 0, 1, 0, 0, 0, 0) // raw pixels only
	write(3, 0, 0, 0, 0, 0, byte(s.Width>>8), byte(s.Width), byte(s.Height>>8), byte(s.Height))
	s.Pixels = make([]byte, s.Width*s.Height*4)
	for left := s.Width * s.Height; left > 0 && err == nil; {
		if kind := read(2)[0]; kind != 0 && err == nil {
			return s, fmt.Errorf("message %d", kind)
		}
		for rows := word(); rows > 0 && err == nil; rows-- {
			x, y, w, h := word(), word(), word(), word()
			if encoding := binary.BigEndian.Uint32(read(4)); encoding != 0 || x+w > s.Width || y+h > s.Height {
				return s, errors.Join(err, fmt.Errorf("%dx%d pixels at %d,%d in encoding %d", w, h, x, y, encoding))
			}
			for row := y; row < y+h; row++ {
				copy(s.Pixels[(row*s.Width+x)*4:], read(w*4))
			}
			left -= w * h
		}
	}
	return s, err
}
