package main

import (
	"context"
	"errors"
	"io"
	"net"
)

// copierOrders say between what the copier stands: a unix socket and an address.
type copierOrders struct{ From, To string }

// copier stands where our owner's side does, between QEMU and the other side, and
// does nothing but pass bytes on: no encryption, no order of its own, no deadline. What
// it costs is what a process there costs.
func copier(ctx context.Context) error {
	var orders copierOrders
	ctx, err := takeOrders(ctx, &orders)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", orders.From)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := say("listens"); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	near, err := listener.Accept()
	if err != nil {
		return err
	}
	defer near.Close()
	far, err := net.Dial("tcp", orders.To)
	if err != nil {
		return err
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })() // it is told to end before QEMU is
	passed := make(chan error, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() { passed <- pass(way[0], way[1]) }()
	}
	err = <-passed // QEMU ends both
	if ctx.Err() != nil {
		return ignoreClosed(<-passed)
	}
	return errors.Join(err, near.Close(), far.Close(), ignoreClosed(<-passed))
}

// pass copies in our own memory; io.Copy would have the kernel splice.
func pass(from, to net.Conn) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
