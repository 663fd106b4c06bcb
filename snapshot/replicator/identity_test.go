package replicator

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmctl/snapshot/durable"
)

// The identity outlives a boot only if the last word before it was that everything
// is durable, and no stream could have written since.
func TestIdentityOverABoot(t *testing.T) {
	wake := func(t *testing.T, i *Identity) uint64 {
		t.Helper()
		since, err := i.Wake()
		must(t, err)
		return since
	}
	for name, c := range map[string]struct {
		live func(t *testing.T, i *Identity)
		same bool
	}{
		"nothing":               {func(*testing.T, *Identity) {}, false},
		"rests":                 {func(t *testing.T, i *Identity) { must(t, i.Rest(wake(t, i), time.Now())) }, true},
		"writes again":          {func(t *testing.T, i *Identity) { must(t, i.Rest(wake(t, i), time.Now())); wake(t, i) }, false},
		"another stream writes": {func(t *testing.T, i *Identity) { old := wake(t, i); wake(t, i); must(t, i.Rest(old, time.Now())) }, false},
		"and that one rests":    {func(t *testing.T, i *Identity) { wake(t, i); must(t, i.Rest(wake(t, i), time.Now())) }, true},
		"becomes another replica": {func(t *testing.T, i *Identity) {
			since := wake(t, i)
			must(t, i.Renew())
			must(t, i.Rest(since, time.Now()))
		}, false},
		"is taken over": {func(t *testing.T, i *Identity) {
			since := wake(t, i)
			must(t, i.Forget())
			must(t, i.Rest(since, time.Now()))
		}, false},
		"its file is damaged": {func(t *testing.T, i *Identity) {
			must(t, i.Rest(wake(t, i), time.Now()))
			must(t, os.Truncate(i.path, 20))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			image, path := filepath.Join(dir, "image"), filepath.Join(dir, "identity")
			must(t, os.WriteFile(image, nil, 0o600))
			before, err := OpenIdentity(durable.Files{}, path, "1", []string{image})
			must(t, err)
			wake(t, before)
			id := before.Value()
			c.live(t, before)
			after, err := OpenIdentity(durable.Files{}, path, "2", []string{image})
			must(t, err)
			if after.Value() != nil {
				t.Error("told before it is kept")
			}
			wake(t, after)
			if same := bytes.Equal(after.Value(), id); same != c.same || len(after.Value()) == 0 {
				t.Errorf("the same replica: %t", same)
			}
			again, err := OpenIdentity(durable.Files{}, path, "3", []string{image})
			must(t, err)
			wake(t, again)
			if bytes.Equal(again.Value(), after.Value()) {
				t.Error("known after two boots, though it was not at rest in the second")
			}
		})
	}
}

// A disk that is full keeps nobody from opening a replica, nor from saying that it
// is another one; but no stream writes then.
func TestIdentityOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "identity")
	i, err := OpenIdentity(durable.Files{}, path, "1", nil)
	must(t, err)
	since, err := i.Wake()
	must(t, err)
	must(t, i.Rest(since, time.Now()))
	id := i.Value()
	must(t, os.Mkdir(path+".tmp", 0o700)) // nothing can be written
	i, err = OpenIdentity(durable.Files{}, path, "2", nil)
	must(t, err)
	if _, err := i.Wake(); err == nil || i.Value() != nil {
		t.Errorf("awake as %x, %v", i.Value(), err)
	}
	must(t, i.Renew())
	must(t, os.Remove(path+".tmp"))
	i, err = OpenIdentity(durable.Files{}, path, "2", nil) // the agent was killed
	must(t, err)
	_, err = i.Wake()
	must(t, err)
	if bytes.Equal(i.Value(), id) {
		t.Error("known as what it was")
	}
}
