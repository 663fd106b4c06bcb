package testguest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeInitrd writes the initramfs: busybox, workload, modules and init.
func writeInitrd(path string, modules []string, workload string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// Not packed: the guest would unpack it under emulation.
	buffer := bufio.NewWriter(file)
	archive := &cpio{out: buffer}
	for _, dir := range []string{"bin", "sbin", "proc", "sys", "dev", "data", "modules", "run"} {
		archive.add(dir, 0o040755, nil)
	}
	archive.addFile("bin/busybox", busybox)
	archive.addFile("bin/workload", workload)
	var order []string
	for i, module := range modules {
		name := fmt.Sprintf("%02d-%s", i, filepath.Base(module))
		data, err := os.ReadFile(module)
		if err == nil {
			data, err = slimModule(data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", module, err)
		}
		archive.add("modules/"+name, 0o100644, data)
		order = append(order, name)
	}
	archive.add("modules/order", 0o100644, []byte(strings.Join(order, "\n")+"\n"))
	archive.add("init", 0o100755, initScript)
	archive.add("TRAILER!!!", 0, nil)
	return errors.Join(archive.err, buffer.Flush())
}

// cpio writes an archive in the format "newc", as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst has it.
type cpio struct {
	out   io.Writer
	inode int
	err   error // the first
}

func (c *cpio) addFile(name, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	c.add(name, 0o100755, data)
}

// addTree adds files with the directories above them.
func (c *cpio) addTree(files map[string]string) {
	made := map[string]bool{".": true}
	var dir func(string)
	dir = func(name string) {
		if !made[name] {
			made[name] = true
			dir(filepath.Dir(name))
			c.add(name, 0o040755, nil)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		dir(filepath.Dir(name))
		c.addFile(name, files[name])
	}
}

func (c *cpio) add(name string, mode uint32, data []byte) {
	if c.err != nil {
		return
	}
	c.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.write([]byte(header + name + "\x00"))
	c.write(data)
}

// write pads to four bytes: header and name together are a multiple then, as
// the data is.
func (c *cpio) write(data []byte) {
	pad := make([]byte, (4-len(data)%4)%4)
	_, err := c.out.Write(append(data[:len(data):len(data)], pad...))
	c.err = errors.Join(c.err, err)
}
