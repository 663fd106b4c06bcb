package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmctl/node/api"
)

// fileSystems are the names of those that a directory for memory is on by mistake.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.NFS_SUPER_MAGIC: "nfs", unix.HUGETLBFS_MAGIC: "hugetlbfs", unix.RAMFS_MAGIC: "ramfs",
}

// checkRAMDir refuses a directory for guests' memory that is not in memory. On a
// disk it would be written out all the time, a boot of the host would not forget it,
// and the kernel would drop pages, and with them what it knows of written ones.
// Nothing is made: what is not there yet will be on the file system of its parent.
//
// Where guests have their memory already it is only said: without an agent they would
// freeze, and earlier versions took such a directory.
func checkRAMDir(dir string, log *slog.Logger) error {
	there := dir
	for {
		_, err := os.Stat(there)
		if err == nil {
			break
		}
		if up := filepath.Dir(there); errors.Is(err, fs.ErrNotExist) && up != there {
			there = up
			continue
		}
		return api.Errorf(api.Usage, "start the agent: look at --ram-dir: %v", err)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(there, &stat); err != nil {
		return fmt.Errorf("start the agent: look at the file system of --ram-dir %s: %w", there, err)
	}
	if stat.Type == unix.TMPFS_MAGIC {
		return nil
	}
	name, ok := fileSystems[stat.Type]
	if !ok {
		name = fmt.Sprintf("a file system of type %#x", stat.Type)
	}
	if used, _ := filepath.Glob(filepath.Join(dir, "*.ram")); len(used) > 0 {
		log.Error("guests' memory has to be on a tmpfs: give another --ram-dir when none runs here", "ram-dir", dir, "file system", name)
		return nil
	}
	return api.Errorf(api.Usage, "start the agent: --ram-dir %s is on %s, not on a tmpfs: guests' memory has to stay in memory", dir, name).
		WithHint("Leave it out for one below /dev/shm, or mount a tmpfs there: mount -t tmpfs -o size=80%% tmpfs %s", dir)
}
