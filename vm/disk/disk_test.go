package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const mib = 1 << 20

func write(t *testing.T, path string, content []byte, size int64) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

// only says that dir holds these files and no rest of any work.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("directory has %v, want %v", got, names)
	}
}

func TestCreate(t *testing.T) {
	source := t.TempDir()
	base, overlay := filepath.Join(source, "base,x:1.raw"), filepath.Join(source, "overlay.qcow2")
	content := []byte("the beginning of a disk")
	write(t, base, content, mib)
	qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "file:"+base, overlay)
	tests := map[string]struct {
		request Request
		size    int64
		content []byte
	}{
		"raw":               {Request{Format: "raw", Size: 3 * mib}, 3 * mib, nil},
		"qcow2":             {Request{Format: "qcow2", Size: 3 * mib}, 3 * mib, nil},
		"raw, all space":    {Request{Format: "raw", Size: mib, Preallocate: true}, mib, nil},
		"qcow2, all space":  {Request{Format: "qcow2", Size: mib, Preallocate: true}, mib, nil},
		"copy of raw":       {Request{Format: "qcow2", Image: base, ImageFormat: "raw"}, mib, content},
		"flat copy":         {Request{Format: "raw", Image: overlay, ImageFormat: "qcow2"}, mib, content},
		"larger copy":       {Request{Format: "raw", Image: overlay, ImageFormat: "qcow2", Size: 2 * mib}, 2 * mib, content},
		"larger qcow2 copy": {Request{Format: "qcow2", Image: base, ImageFormat: "raw", Size: 2 * mib, Preallocate: true}, 2 * mib, content},
	}
	for name, test := range tests {
		dir := t.TempDir()
		test.request.Path = filepath.Join(dir, "disk")
		if err := (Tool{}).Create(t.Context(), test.request); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		info, err := (Tool{}).Info(t.Context(), test.request.Path)
		if err != nil || info.Format != test.request.Format || info.VirtualSize != test.size || info.Backing != "" {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if test.request.Preallocate && info.ActualSize < test.size {
			t.Errorf("%s: takes only %d bytes", name, info.ActualSize)
		}
		if !test.request.Preallocate && info.ActualSize > mib/2 {
			t.Errorf("%s: takes %d bytes", name, info.ActualSize)
		}
		stat, err := os.Stat(test.request.Path)
		if err != nil || stat.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, stat.Mode(), err)
		}
		flat := filepath.Join(t.TempDir(), "flat")
		qemuImg(t, "convert", "-f", test.request.Format, "-O", "raw", test.request.Path, flat)
		data, _ := os.ReadFile(flat)
		want := append(bytes.Clone(test.content), make([]byte, int(test.size)-len(test.content))...)
		if !bytes.Equal(data, want) {
			t.Errorf("%s: wrong content", name)
		}
		if report, err := (Tool{}).Check(t.Context(), test.request.Path, test.request.Format); err != nil || report != (Report{}) {
			t.Errorf("%s: check: %+v, %v", name, report, err)
		}
		only(t, dir, "disk")
	}
}

func TestCreateFails(t *testing.T) {
	dir := t.TempDir()
	image, there := filepath.Join(dir, "image"), filepath.Join(dir, "there")
	write(t, image, []byte("x"), 2*mib)
	write(t, there, []byte("precious"), 8)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := map[string]struct {
		ctx     context.Context
		request Request
		is      error
	}{
		"exists":           {t.Context(), Request{Path: there, Format: "raw", Size: mib}, ErrExists},
		"format":           {t.Context(), Request{Path: dir + "/new", Format: "vmdk", Size: mib}, ErrFormat},
		"no size":          {t.Context(), Request{Path: dir + "/new", Format: "raw"}, nil},
		"odd size":         {t.Context(), Request{Path: dir + "/new", Format: "raw", Size: 513}, nil},
		"image is larger":  {t.Context(), Request{Path: dir + "/new", Format: "raw", Image: image, ImageFormat: "raw", Size: mib}, ErrShrink},
		"image is missing": {t.Context(), Request{Path: dir + "/new", Format: "raw", Image: dir + "/no", ImageFormat: "raw"}, nil},
		"no directory":     {t.Context(), Request{Path: dir + "/no/new", Format: "raw", Size: mib}, os.ErrNotExist},
		"ended":            {ended, Request{Path: dir + "/new", Format: "qcow2", Size: mib}, context.Canceled},
		"no room":          {t.Context(), Request{Path: dir + "/new", Format: "raw", Size: 1 << 50, Preallocate: true}, nil},
		"too large":        {t.Context(), Request{Path: dir + "/new", Format: "qcow2", Size: 1 << 62}, nil},
	}
	for name, test := range tests {
		err := (Tool{}).Create(test.ctx, test.request)
		if err == nil || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v", name, err)
		}
		only(t, dir, "image", "there")
	}
	if data, _ := os.ReadFile(there); string(data) != "precious" {
		t.Errorf("an existing file became %q", data)
	}
}

// A copy that is cut short leaves nothing. The program hangs, as on a dead
// network file system.
func TestCreateCutShort(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	write(t, image, []byte("x"), mib)
	slow := filepath.Join(t.TempDir(), "qemu-img")
	script := "#!/bin/sh\n[ $1 = info ] && exec /usr/bin/qemu-img \"$@\"\nfor f; do :; done\necho partial > \"$f\"\necho > " + slow + ".begun\nexec sleep 600\n"
	if err := os.WriteFile(slow, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Tool{Path: slow}.Create(ctx, Request{Path: dir + "/new", Format: "raw", Image: image, ImageFormat: "raw"})
	}()
	for {
		if _, err := os.Stat(slow + ".begun"); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	only(t, dir, "image")
}

func TestGrow(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := (Tool{}).Create(t.Context(), Request{Path: path, Format: format, Size: 2 * mib}); err != nil {
			t.Fatal(err)
		}
		if err := (Tool{}).Grow(t.Context(), path, format, 4*mib, false); err != nil {
			t.Error(err)
		}
		if err := (Tool{}).Grow(t.Context(), path, format, 4*mib, false); err != nil {
			t.Errorf("to the present size: %v", err)
		}
		if err := (Tool{}).Grow(t.Context(), path, format, mib, false); !errors.Is(err, ErrShrink) {
			t.Errorf("shrink: %v", err)
		}
		if info, err := (Tool{}).Info(t.Context(), path); err != nil || info.VirtualSize != 4*mib {
			t.Errorf("%s: %+v, %v", format, info, err)
		}
	}
}

// A part that is to be preallocated has its space when Grow or Reserve returns, and
// Reserve leaves the size alone.
func TestGrowTakesSpace(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := (Tool{}).Create(t.Context(), Request{Path: path, Format: format, Size: 2 * mib}); err != nil {
			t.Fatal(err)
		}
		if err := (Tool{}).Grow(t.Context(), path, format, 8*mib, true); err != nil {
			t.Error(err)
		}
		if info, err := (Tool{}).Info(t.Context(), path); err != nil || info.VirtualSize != 8*mib || info.ActualSize < 6*mib {
			t.Errorf("%s: %+v, %v", format, info, err)
		}
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := (Tool{}).Create(t.Context(), Request{Path: path, Format: "raw", Size: 2 * mib}); err != nil {
		t.Fatal(err)
	}
	if err := Reserve(path, 2*mib, 8*mib); err != nil {
		t.Fatal(err)
	}
	if info, err := (Tool{}).Info(t.Context(), path); err != nil || info.VirtualSize != 2*mib || info.ActualSize < 6*mib {
		t.Errorf("reserved: %+v, %v", info, err)
	}
	if err := Reserve(path, 2*mib, 1<<60); !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EFBIG) {
		t.Errorf("more than there is: %v", err)
	}
	if free, err := Free(path); err != nil || free <= 0 {
		t.Errorf("free: %d, %v", free, err)
	}
	if err := Sync(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("sync of no disk: %v", err)
	}
}

func TestGrowOfDiskInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := (Tool{}).Create(t.Context(), Request{Path: path, Format: "qcow2", Size: mib}); err != nil {
		t.Fatal(err)
	}
	// The lock that QEMU takes on what it writes: byte 201 of the file.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const ofdSetLock = 37
	lock := syscall.Flock_t{Type: syscall.F_RDLCK, Start: 201, Len: 1}
	if err := syscall.FcntlFlock(file.Fd(), ofdSetLock, &lock); err != nil {
		t.Fatal(err)
	}
	if err := (Tool{}).Grow(t.Context(), path, "qcow2", 2*mib, false); !errors.Is(err, ErrInUse) {
		t.Errorf("grow of a disk in use: %v", err)
	}
	if _, err := (Tool{}).Info(t.Context(), path); err != nil {
		t.Errorf("info of a disk in use: %v", err)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := (Tool{}).Create(t.Context(), Request{Path: path, Format: "qcow2", Size: mib, Preallocate: true}); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(make([]byte, 65536), 2*65536); err != nil { // reference counts
		t.Fatal(err)
	}
	if report, err := (Tool{}).Check(t.Context(), path, "qcow2"); err != nil || report.Corruptions == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := (Tool{}).Check(t.Context(), path+"x", "qcow2"); err == nil {
		t.Error("a missing disk passes")
	}
	if _, err := (Tool{}).Check(t.Context(), path+"x", "raw"); err == nil {
		t.Error("a missing raw disk passes")
	}
}

func TestConflict(t *testing.T) {
	dir := t.TempDir()
	disk, link, hard, other := dir+"/disk", dir+"/link", dir+"/hard", dir+"/other"
	write(t, disk, nil, 0)
	write(t, other, nil, 0)
	if err := errors.Join(os.Symlink(disk, link), os.Link(disk, hard)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path string
		used []string
		want string
	}{
		{disk, nil, ""},
		{disk, []string{other, dir + "/gone"}, ""},
		{disk, []string{other, disk}, disk},
		{disk, []string{dir + "/../" + filepath.Base(dir) + "/disk"}, dir + "/../" + filepath.Base(dir) + "/disk"},
		{disk, []string{link}, link},
		{disk, []string{hard}, hard},
		{link, []string{hard}, hard},
		{dir + "/gone", []string{dir + "/gone"}, dir + "/gone"},
		{dir + "/gone", []string{disk}, ""},
	}
	for _, test := range tests {
		if got, err := Conflict(test.path, test.used); err != nil || got != test.want {
			t.Errorf("Conflict(%s, %v) = %q, %v", test.path, test.used, got, err)
		}
	}
	if err := Remove(other); err != nil {
		t.Error(err)
	}
	if err := Remove(other); err != nil {
		t.Errorf("second remove: %v", err)
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte(`{"format":"qcow2","virtual-size":1048576,"backing-filename":"b","format-specific":{"data":{"corrupt":true}}}`))
	f.Add([]byte(`{"virtual-size":"x"}`))
	f.Fuzz(func(t *testing.T, output []byte) {
		if info, err := parseInfo(output); err != nil && info != (Info{}) {
			t.Errorf("both %+v and %v", info, err)
		}
	})
}
