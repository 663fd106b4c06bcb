package packages

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Options of a build.
type Options struct {
	Root    string    // the module's directory
	Version string    // as `git describe` words it; empty: ask git
	Out     string    // directory of the packages, made if need be
	Log     io.Writer // progress for people; nil: none
}

// Packages are the files that were built.
type Packages struct {
	Deb, RPM string
	Program  string // the version that `vmctl --version` says
	Version  string // that of the packages
}

// copied are the files that go into the packages as they are in the sources.
var copied = []string{
	"LICENSE", "README.md", "CHANGELOG.md",
	"packaging/systemd/vmctl.service", "packaging/systemd/vmctl-witness.service",
	"packaging/package/files/vmctl.yaml", "packaging/package/files/vmctl.bash", "packaging/package/files/copyright",
	"packaging/package/scripts/deb-postinst", "packaging/package/scripts/deb-prerm", "packaging/package/scripts/deb-postrm",
	"packaging/package/scripts/rpm-post", "packaging/package/scripts/rpm-preun", "packaging/package/scripts/rpm-postun",
	"packaging/package/nfpm.yaml",
}

// Build compiles the program and packs it. It needs Go, at its first use the
// network (for nfpm), and to make a guess of the version and its date, git.
func Build(ctx context.Context, o Options) (Packages, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Version == "" {
		o.Version = describe(ctx, o.Root)
	}
	date, err := sourceDate(ctx, o.Root)
	if err != nil {
		return Packages{}, err
	}
	p := Packages{Program: o.Version}
	if p.Version, err = Version(o.Version, date); err != nil {
		return p, err
	}
	stage, err := os.MkdirTemp("", "vmctl-package")
	if err != nil {
		return p, fmt.Errorf("make a directory to pack: %w", err)
	}
	defer os.RemoveAll(stage)
	if err := fill(ctx, o, stage, date); err != nil {
		return p, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return p, fmt.Errorf("make the directory of the packages: %w", err)
	}
	p.Deb = filepath.Join(o.Out, "vmctl_"+p.Version+"_amd64.deb")
	p.RPM = filepath.Join(o.Out, "vmctl-"+p.Version+"-1.x86_64.rpm")
	return p, pack(ctx, o, stage, date, p)
}

// fill puts everything that nfpm.yaml names into the stage.
func fill(ctx context.Context, o Options, stage string, date time.Time) error {
	for _, name := range copied {
		data, err := os.ReadFile(filepath.Join(o.Root, name))
		if err != nil {
			return fmt.Errorf("copy what is packed: %w", err)
		}
		if err := os.WriteFile(filepath.Join(stage, filepath.Base(name)), data, 0o644); err != nil {
			return fmt.Errorf("copy what is packed: %w", err)
		}
	}
	program := filepath.Join(stage, "vmctl")
	if err := compile(ctx, o, program); err != nil {
		return err
	}
	page, err := manual(ctx, program, o.Root, date)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // has no name and no time
	_, _ = z.Write(page)
	_ = z.Close()
	if err := os.WriteFile(filepath.Join(stage, "vmctl.8.gz"), packed.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the manual page: %w", err)
	}
	notices, err := thirdParty(ctx, o.Root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(stage, "THIRD-PARTY"), notices, 0o644); err != nil {
		return fmt.Errorf("write the licences of libraries: %w", err)
	}
	return nil
}

// target makes `go` build and list for the packages' machine.
var target = []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS="}

// undebugged makes the compiler write nothing for debuggers, as the Makefile does:
// it would be stripped.
const undebugged = "-gcflags=all=-dwarf=false"

func compile(ctx context.Context, o Options, program string) error {
	// Without -buildvcs=false, a file that git does not know would change the bytes.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", undebugged,
		"-ldflags", "-s -w -X vmctl/node/cli.version="+o.Version, "-o", program, ".")
	cmd.Dir = o.Root
	cmd.Env = append(os.Environ(), target...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile vmctl: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func pack(ctx context.Context, o Options, stage string, date time.Time, p Packages) error {
	program, err := nfpm(ctx, o.Root, o.Log)
	if err != nil {
		return err
	}
	for packager, file := range map[string]string{"deb": p.Deb, "rpm": p.RPM} {
		absolute, err := filepath.Abs(file)
		if err != nil {
			return fmt.Errorf("build %s: %w", file, err)
		}
		cmd := exec.CommandContext(ctx, program, "package", "--config", "nfpm.yaml", "--packager", packager, "--target", absolute)
		cmd.Dir = stage
		cmd.Env = append(os.Environ(), "VERSION="+p.Version, "SOURCE_DATE_EPOCH="+strconv.FormatInt(date.Unix(), 10))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", file, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
