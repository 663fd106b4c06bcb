package testguest

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Image is a guest ready to boot: kernel, initramfs, one that has the guest agent
// too, and a disk with an empty ext4 file system to copy.
type Image struct {
	Kernel, Initrd, AgentInitrd, DiskBase string
}

// KernelWords are for the guest's kernel, before what a test adds: no tests of
// its own at every boot, and nothing against speculation, which an emulated
// processor does not do. They make a boot a quarter shorter. Nor is set up what it
// never uses and costs it most: kernel probes, a key derivation's test, another
// congestion control than TCP's plainest, files about slabs and huge pages,
// certificates and keys; another tenth.
const KernelWords = "console=ttyS0 quiet mitigations=off cryptomgr.notests ipv6.disable=1 initcall_blacklist=init_kprobe_trace," +
	"crypto_kdf108_init,cubictcp_register,slab_sysfs_init,hugetlb_init,memory_tier_init,load_system_certificate_list,init_encrypted"

//go:embed init.sh
var initScript []byte

// busybox is what Debian's package busybox-static installs.
const busybox = "/bin/busybox"

// recipe changes when the way of building does, so that old images are not
// taken for new ones.
const recipe = "8"

// Build makes the guest, or finds it in the cache. The workload's package is
// found from the module this process's directory is in.
func Build(ctx context.Context, cacheDir string) (Image, error) {
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return Image{}, fmt.Errorf("build the test guest: %w", err)
	}
	unlock, err := lock(filepath.Join(cacheDir, "lock"))
	if err != nil {
		return Image{}, fmt.Errorf("build the test guest: %w", err)
	}
	defer unlock()
	if err := sweep(cacheDir); err != nil {
		return Image{}, fmt.Errorf("build the test guest: %w", err)
	}
	work, err := os.MkdirTemp(cacheDir, "work-")
	if err != nil {
		return Image{}, fmt.Errorf("build the test guest: %w", err)
	}
	defer os.RemoveAll(work)
	workload := filepath.Join(work, "workload")
	if err := run(ctx, "", []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", workload, "vmctl/packaging/testguest/workload"); err != nil {
		return Image{}, fmt.Errorf("build the workload: %w", err)
	}
	key, err := keyOf(workload, busybox)
	if err != nil {
		return Image{}, fmt.Errorf("build the test guest: %w", err)
	}
	dir := filepath.Join(cacheDir, key)
	image := imageIn(dir)
	if _, err := os.Stat(dir); err == nil {
		return image, nil
	}
	made := filepath.Join(work, "image")
	if err := assemble(ctx, work, made, workload); err != nil {
		return Image{}, fmt.Errorf("build the test guest: %w", err)
	}
	return image, os.Rename(made, dir)
}

func imageIn(dir string) Image {
	return Image{
		Kernel: filepath.Join(dir, "kernel"), Initrd: filepath.Join(dir, "initrd"),
		AgentInitrd: filepath.Join(dir, "initrd.agent"), DiskBase: filepath.Join(dir, "disk.raw"),
	}
}

// sweep removes what builders that were killed left behind. The caller holds
// the lock, so that nobody works there.
func sweep(cacheDir string) error {
	left, err := filepath.Glob(filepath.Join(cacheDir, "work-*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// keyOf names an image by what it is made of. The kernel is left out: looking
// it up would need the package lists each time.
func keyOf(files ...string) (string, error) {
	hash := sha256.New()
	hash.Write([]byte(recipe))
	hash.Write(initScript)
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(data)
		hash.Write(sum[:])
	}
	return hex.EncodeToString(hash.Sum(nil)[:8]), nil
}

// assemble puts the image together in dir.
func assemble(ctx context.Context, work, dir, workload string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	kernel, err := fetchKernel(ctx, filepath.Join(work, "kernel"))
	if err != nil {
		return err
	}
	image := imageIn(dir)
	if err := unpackKernel(ctx, kernel.image, image.Kernel); err != nil {
		return err
	}
	agent, err := fetchAgent(ctx, filepath.Join(work, "agent"))
	if err != nil {
		return err
	}
	if err := writeInitrd(image.Initrd, kernel.modules, workload); err != nil {
		return fmt.Errorf("write the initramfs: %w", err)
	}
	if err := image.Extend(image.AgentInitrd, agent); err != nil {
		return err
	}
	return makeDisk(ctx, filepath.Join(work, "files"), image.DiskBase)
}

// lock waits for another builder.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { file.Close() }, nil
}

func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	_, err := output(ctx, dir, env, name, args...)
	return err
}

func output(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %v: %w: %s", name, args, err, exit.Stderr)
	}
	return out, err
}
