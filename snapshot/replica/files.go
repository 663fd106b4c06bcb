package replica

import (
	"errors"
	"io/fs"
	"os"

	"vmctl/snapshot/durable"
	"vmctl/snapshot/memory"
)

// files makes every change of a replica to a file system. before, set by
// tests, is asked first; what it returns is the change's error, so a test can
// stop the world, or end the process, between any two changes. What has to
// outlive a power cut passes through durable, too.
type files struct {
	before  func(change, path string) error
	durable durable.Files
}

// errTorn, from before, makes a write stop half-way.
var errTorn = errors.New("torn write")

func (f files) ask(change, path string) error {
	if f.before == nil {
		return nil
	}
	return f.before(change, path)
}

// create makes a file, or empties one that a crash left.
func (f files) create(path string) (*durable.File, error) {
	if err := f.ask("create", path); err != nil {
		return nil, err
	}
	return f.durable.Open(path, os.O_CREATE|os.O_TRUNC)
}

// replace gives a file new content, of which a failure leaves nothing: the name is
// durable after syncDir.
func (f files) replace(path string, data []byte) error {
	fresh := path + ".new"
	file, err := f.create(fresh)
	if err != nil {
		return err
	}
	if err = f.write(file, data); err == nil {
		err = f.sync(file)
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.rename(fresh, path)
	}
	if err != nil { // a disk without room, say, which its remains would make fuller
		return errors.Join(err, f.remove(fresh))
	}
	return nil
}

func (f files) write(file *durable.File, p []byte) error {
	if err := f.ask("write", file.Name()); err != nil {
		if errors.Is(err, errTorn) {
			_, _ = file.Write(p[:len(p)/2])
		}
		return err
	}
	_, err := file.Write(p)
	return err
}

func (f files) sync(file *durable.File) error {
	if err := f.ask("sync", file.Name()); err != nil {
		return err
	}
	return file.Sync()
}

func (f files) rename(from, to string) error {
	if err := f.ask("rename", to); err != nil {
		return err
	}
	return f.durable.Rename(from, to)
}

// remove does not mind a file that is gone.
func (f files) remove(path string) error {
	if err := f.ask("remove", path); err != nil {
		return err
	}
	if err := f.durable.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f files) syncDir(path string) error {
	if err := f.ask("syncdir", path); err != nil {
		return err
	}
	return f.durable.SyncDir(path)
}

// createRAM makes an empty RAM file.
func (f files) createRAM(path string, size int64) (*ramFile, error) {
	if err := f.ask("create", path); err != nil {
		return nil, err
	}
	file, err := memory.Create(path, size)
	if err != nil {
		return nil, err
	}
	return &ramFile{file, f, path}, nil
}

func (f files) openRAM(path string, size int64) (*ramFile, error) {
	file, err := memory.OpenFile(path, size)
	if err != nil {
		return nil, err
	}
	return &ramFile{file, f, path}, nil
}

// ramFile is the memory.Target of a replica.
type ramFile struct {
	file  *memory.File
	files files
	path  string
}

func (r *ramFile) WriteAt(p []byte, off int64) (int, error) {
	if err := r.files.ask("page", r.path); err != nil {
		if errors.Is(err, errTorn) {
			_, _ = r.file.WriteAt(p[:len(p)/2], off)
		}
		return 0, err
	}
	return r.file.WriteAt(p, off)
}

func (r *ramFile) Zero(off, length int64) error {
	if err := r.files.ask("page", r.path); err != nil {
		return err
	}
	return r.file.Zero(off, length)
}

// reserve makes sure of memory; what the pages read as stays.
func (r *ramFile) reserve(off, length int64) error {
	if err := r.files.ask("reserve", r.path); err != nil {
		return err
	}
	return r.file.Reserve(off, length)
}

func (r *ramFile) Close() error { return r.file.Close() }
