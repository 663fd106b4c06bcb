package api

import (
	"context"
	"net/http"
	"net/url"
)

// Resizer makes disks larger.
type Resizer interface {
	// ResizeDisk makes a disk of a guest as large as size says: "20G", or "+5G" for
	// so much more. force is the user's word that it be done although a host has
	// less room than the disk may take.
	ResizeDisk(ctx context.Context, name, disk, size string, force bool) (VM, error)
}

func (b *Backend) resizeDisk(r *http.Request) (any, error) {
	var in struct{ Size string }
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	return b.Resizer.ResizeDisk(r.Context(), r.PathValue("vm"), r.PathValue("disk"), in.Size, forced(r))
}

// ResizeDisk makes a disk of a guest larger; see Resizer.
func (c *Client) ResizeDisk(ctx context.Context, name, disk, size string) (out VM, err error) {
	rest := "/disks/" + url.PathEscape(disk) + "/resize" + c.query(nil)
	if disk == "" || disk == "." || disk == ".." { // a step of the path
		return out, Errorf(NotFound, "%s has no disk %q", name, disk)
	}
	return out, c.callVM(ctx, http.MethodPost, "vms", name, rest, map[string]string{"size": size}, &out)
}
