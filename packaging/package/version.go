package packages

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

var (
	released = regexp.MustCompile(`^v?(\d+\.\d+(?:\.\d+)*)(?:-?((?:alpha|beta|rc)[.\d]*))?(?:-(\d+)-g([0-9a-f]+))?(-dirty)?$`)
	untagged = regexp.MustCompile(`^([0-9a-f]{7,40})(-dirty)?$`)
)

// Version is described, the words of `git describe`, as both dpkg and rpm sort
// it: a candidate before its release, commits after a release behind it, commits
// of a repository without releases by their time.
func Version(described string, committed time.Time) (string, error) {
	if m := released.FindStringSubmatch(described); m != nil {
		version := m[1]
		if m[2] != "" {
			version += "~" + m[2]
		}
		var extra []string
		if m[3] != "" {
			extra = append(extra, m[3], "g"+m[4])
		}
		if m[5] != "" {
			extra = append(extra, "dirty")
		}
		if len(extra) > 0 {
			version += "+" + strings.Join(extra, ".")
		}
		return version, nil
	}
	if m := untagged.FindStringSubmatch(described); m != nil {
		return "0.0.0+" + committed.UTC().Format("20060102150405") + ".g" + m[1] + strings.Replace(m[2], "-", ".", 1), nil
	}
	return "", fmt.Errorf("%q is no version a package can have: use one like 1.2.3 or v1.2.3-rc1", described)
}
