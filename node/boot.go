package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// purposeBoot names the connections that carry kernel and initrd of a guest to
// the node that holds its replica: QEMU wants the files to be there.
const purposeBoot = "boot"

const (
	kindBootPart  wire.Kind = 64
	bootPart                = 256 << 10
	maxBootFile             = 1 << 30
	bootFileLimit           = 2
)

// bootFile is one file of a guest's boot directory.
type bootFile struct {
	Name string `msgpack:"name"`
	Size int64  `msgpack:"size"`
	Sum  []byte `msgpack:"sum"`
}

// bootWanted lists the files the other node lacks.
type bootWanted struct {
	Names []string `msgpack:"names"`
}

// sendBoot gives the peer the boot files that it lacks.
func (g *guest) sendBoot(ctx context.Context) error {
	files, err := g.bootFiles()
	if err != nil || len(files) == 0 {
		return err
	}
	conn, err := g.n.members.dial(ctx, purposeBoot, g.id, wire.Options{ReadTimeout: time.Minute, WriteTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var wanted bootWanted
	if err := peer.Ask(conn, files, &wanted); err != nil {
		return err
	}
	for _, name := range wanted.Names {
		if err := sendFile(conn, filepath.Join(g.layout.Boot(), filepath.Base(name))); err != nil {
			return fmt.Errorf("send %s: %w", name, err)
		}
	}
	if len(wanted.Names) == 0 {
		return nil
	}
	_, _, err = conn.Receive() // everything is in place
	return err
}

func (g *guest) bootFiles() (files []bootFile, err error) {
	spec := g.spec()
	for _, f := range []struct{ used, path string }{{spec.Kernel, g.layout.Kernel()}, {spec.Initrd, g.layout.Initrd()}} {
		if f.used == "" {
			continue
		}
		size, sum, err := sumFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("read the guest's boot file: %w", err)
		}
		files = append(files, bootFile{Name: filepath.Base(f.path), Size: size, Sum: sum})
	}
	return files, nil
}

func sumFile(path string) (int64, []byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, file)
	return size, hash.Sum(nil), err
}

func sendFile(conn *wire.Conn, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	part := make([]byte, bootPart)
	for {
		n, err := io.ReadFull(file, part)
		if n > 0 {
			if err := conn.Send(kindBootPart, part[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// serveBoot takes boot files from the guest's owner.
func (gs *guests) serveBoot(_ context.Context, conn *wire.Conn, hello wire.Hello) {
	conn.SetTimeouts(time.Minute, 10*time.Second)
	var offered []bootFile
	var missing []bootFile
	var g *guest
	err := peer.Answer(conn, &offered, func() (any, error) {
		if g = gs.get(hello.Guest); g == nil {
			gs.n.exchange.soon()
			return nil, &wire.Refused{Code: string(api.NotFound), Message: "the guest is not known here yet"}
		}
		if g.isOwner() || len(offered) > bootFileLimit {
			return nil, &wire.Refused{Code: string(api.Conflict), Message: "these boot files are not wanted here"}
		}
		var wanted bootWanted
		for _, f := range offered {
			path := filepath.Join(g.layout.Boot(), filepath.Base(f.Name))
			if _, sum, err := sumFile(path); err != nil || !bytes.Equal(sum, f.Sum) {
				missing = append(missing, f)
				wanted.Names = append(wanted.Names, f.Name)
			}
		}
		return wanted, nil
	})
	for i := 0; err == nil && i < len(missing); i++ {
		err = receiveFile(conn, g.layout.Boot(), missing[i])
	}
	if err == nil && len(missing) > 0 {
		err = conn.Send(kindBootPart, []byte{})
	}
	if err != nil {
		gs.n.log.Info("boot files not received", "vm", hello.Guest, "error", err)
	}
}

// receiveFile takes one file: whole and right, or not at all.
func receiveFile(conn *wire.Conn, dir string, f bootFile) error {
	if f.Size < 0 || f.Size > maxBootFile {
		return fmt.Errorf("boot file %s of %d bytes is refused", f.Name, f.Size)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, filepath.Base(f.Name))
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path + ".new") // has another name by then, if all went well
	defer file.Close()
	hash := sha256.New()
	for got := int64(0); got < f.Size; {
		_, body, err := conn.Receive()
		if err != nil {
			return err
		}
		var part []byte
		if err := wire.Decode(body, &part); err != nil {
			return err
		}
		got += int64(len(part))
		if len(part) == 0 || got > f.Size {
			return fmt.Errorf("boot file %s: wrong length: %w", f.Name, wire.ErrMalformed)
		}
		hash.Write(part)
		if _, err := file.Write(part); err != nil {
			return err
		}
	}
	if !bytes.Equal(hash.Sum(nil), f.Sum) {
		return fmt.Errorf("boot file %s arrived damaged", f.Name)
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
