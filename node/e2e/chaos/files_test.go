package chaos

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"vmctl/node/e2e/lab"
)

// sameFiles says which files a host has of the guest that an owner, or a
// standby, does not need.
func (c *chaos) sameFiles(h *lab.Host, owner bool) error {
	have, err := c.guestFiles(h)
	if err != nil {
		return err
	}
	if c.files == nil {
		c.files = map[bool][]string{}
	}
	if c.files[owner] == nil {
		c.files[owner] = have
		c.say("files on %s, owner %v: %v", h.Name, owner, have)
		return nil
	}
	for i, f := range have {
		if i > 0 && have[i-1] == f && (strings.HasSuffix(f, ".ram") || strings.HasSuffix(f, "-N.undo")) {
			return fmt.Errorf("%s has this of the guest's memory twice: %s", h.Name, f)
		}
		if !slices.Contains(c.files[owner], f) && !slices.Contains(mayBe, f) {
			return fmt.Errorf("%s (owner: %v) has a file it should not have: %s", h.Name, owner, f)
		}
	}
	return nil
}

// mayBe are files that tell of the past and stay.
var mayBe = []string{
	"s/guests/UUID/exit.json", "s/guests/UUID/serial.log", "s/guests/UUID/qemu.log", "s/guests/UUID/sequence",
	"s/guests/UUID/exit.json.new", // of a guard that was killed over it: the next one's takes its place
	"r/g/UUID8/guard.sock.lock",   // a lock's file must not be removed while another may wait for it
	"/UUID-N-N.undo",              // the way back to the checkpoint before, kept when few pages changed
	// Of the replica that was resumed: the next owner's first stream removes it.
	"s/guests/UUID/disks/disk0.raw.undo/N.seg", "s/guests/UUID/replica/checkpoint", "s/guests/UUID/replica/lock", "/UUID-N-N.ram",
}

// number is an epoch or a sequence in the name of a file.
var number = regexp.MustCompile(`[0-9a-f]{16}`)

// guestFiles lists what the host has of the guest, but the disks that it kept
// on purpose.
func (c *chaos) guestFiles(h *lab.Host) (list []string, err error) {
	for _, root := range []string{filepath.Join(h.StateDir(), "guests"), filepath.Join(h.Dir(), "r", "g"), h.RAMDir()} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // it may be going at this moment
			}
			name := strings.TrimPrefix(strings.TrimPrefix(path, h.Dir()+"/"), h.RAMDir())
			name = number.ReplaceAllString(c.short(name), "N")
			if !strings.Contains(name, "/kept-epoch-") {
				list = append(list, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}
