package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmctl/packaging/testguest/work"
)

// disks are the logs on the disks there are, and the files under them.
type disks struct {
	logs  []*work.Log
	files []*os.File
}

// open opens the logs: a file on the first disk, the second disk as it is.
func (d *disks) open() error {
	if exists("/data/lost+found") {
		if err := d.add("vda", "/data/log", true); err != nil {
			return err
		}
	}
	if exists("/dev/vdb") {
		return d.add("vdb", "/dev/vdb", false)
	}
	return nil
}

// add opens a log past the page cache, so that each record is on the disk when
// its write returns, and each read comes from there.
func (d *disks) add(name, path string, create bool) error {
	if create && !exists(path) {
		if err := fillZero(path); err != nil {
			return fmt.Errorf("%s: make the log: %w", name, err)
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.files = append(d.files, file)
	log, history, err := work.OpenLog(name, file, work.LogSlots, work.Aligned(work.PageSize))
	if err != nil {
		return err
	}
	fmt.Printf("workload: %s holds %d records\n", name, history.Records)
	d.logs = append(d.logs, log)
	return nil
}

// close leaves the file system clean.
func (d *disks) close() {
	for _, file := range d.files {
		if err := file.Close(); err != nil {
			fmt.Println("workload:", err)
		}
	}
	if !exists("/data/lost+found") {
		return
	}
	if err := unix.Unmount("/data", 0); err != nil {
		fmt.Println("workload: the disk stays mounted:", err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fillZero makes the log's file whole under another name first: a crash leaves
// none, not half of one.
func fillZero(path string) error {
	if err := os.WriteFile(path+".new", make([]byte, work.LogSize), 0o644); err != nil {
		return err
	}
	file, err := os.Open(path + ".new")
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close(), os.Rename(path+".new", path)); err != nil {
		return err
	}
	dir, err := os.Open("/data")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
