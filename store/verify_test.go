package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a store file with everything in it: branches, overflow pages, free
// pages, an inline bucket.
func sample(t testing.TB, dir string) []byte {
	t.Helper()
	path := filepath.Join(dir, "sample.db")
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		err = errors.Join(err, db.Update(func(tx *Tx) error {
			for j := range 30 {
				name := fmt.Sprint(i, j)
				if _, err := guests.Put(tx, name, guest{Name: name, Blob: make([]byte, j*20+j/29*10000)}); err != nil {
					return err
				}
			}
			_, err := NewLog[string]("inline").Append(tx, "e")
			return err
		}))
	}
	if err := errors.Join(err, db.Check(), db.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimRight(data, "\x00")
}

// tryDamaged opens a damaged file and uses it in every way. It may be refused
// or some rows may be; what comes out must be what was put in.
func tryDamaged(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if rest := len(data) % pageSize; rest != 0 {
		if err := os.Truncate(path, int64(len(data)+pageSize-rest)); err != nil {
			t.Fatal(err)
		}
	}
	db, err := Open(path, Options{})
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrSchema) {
			t.Fatalf("refused with %v", err)
		}
		if errors.Is(err, ErrCorrupt) && (!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup")) {
			t.Fatalf("no help in %v", err)
		}
		return
	}
	defer func() { _ = db.Close() }()
	_ = db.Check()
	if err := db.View(func(tx *Tx) error {
		for row, err := range guests.Prefix(tx, "") {
			if err == nil && row.Key != row.Value.Name {
				t.Fatalf("row %q holds %q", row.Key, row.Value.Name)
			}
		}
		_, err := NewLog[string]("inline").Since(tx, 0, 0)
		return err
	}); err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *Tx) error {
		_, err := guests.Put(tx, "00", guest{Name: "00", Blob: make([]byte, 9000)})
		return err
	}); err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	dir := memoryDir(t)
	good := sample(t, dir)
	path := filepath.Join(dir, "damaged.db")
	random := rand.New(rand.NewPCG(5, 6))
	for range 400 {
		data := bytes.Clone(good)
		for range random.IntN(3) + 1 {
			page := random.IntN((len(data) + pageSize - 1) / pageSize)
			at := page * pageSize
			if random.IntN(4) > 0 { // mostly where the structure is
				at += random.IntN(200)
			} else {
				at += random.IntN(pageSize)
			}
			if at < len(data) {
				data[at] ^= byte(1 << random.IntN(8))
			}
		}
		tryDamaged(t, path, data)
	}
	// Whole pages in the wrong place, as a lost or misdirected write leaves them.
	for range 100 {
		data := bytes.Clone(good)
		pages := len(data) / pageSize
		from, to := random.IntN(pages), random.IntN(pages)
		copy(data[to*pageSize:(to+1)*pageSize], good[from*pageSize:])
		tryDamaged(t, path, data)
	}
}

func TestRefusedFiles(t *testing.T) {
	dir := memoryDir(t)
	good := sample(t, dir)
	path := filepath.Join(dir, "refused.db")
	cases := map[string][]byte{
		"empty":               {},
		"text":                []byte("hello"),
		"zeros":               make([]byte, 65536),
		"cut in a meta page":  good[:5000],
		"cut after the metas": good[:2*pageSize],
		"last page missing":   good[:(len(good)-1)/pageSize*pageSize],
		"no meta page":        append(make([]byte, 2*pageSize), good[2*pageSize:]...),
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path, Options{})
			wantErr(t, err, ErrCorrupt, path, "backup")
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

// A file that loses its end while it is open is a memory fault inside bbolt.
func TestFileCutOffWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := openTestBroken(t, path)
	for i := range 100 {
		put(t, db, fmt.Sprint(i), guest{Blob: make([]byte, 3000)})
	}
	if err := os.Truncate(path, 2*pageSize); err != nil {
		t.Fatal(err)
	}
	read := func(tx *Tx) error { _, err := guests.List(tx, ""); return err }
	wantErr(t, db.View(read), ErrCorrupt, path)
	wantErr(t, db.View(read), ErrCorrupt)
	wantErr(t, db.Update(change), ErrCorrupt)
	wantErr(t, db.Check(), ErrCorrupt)
	closeTest(t, db)
	_, err := Open(path, Options{LockTimeout: -1})
	wantErr(t, err, ErrCorrupt) // and not ErrLocked: Close has let go
}

// openTestBroken is for a store that the test breaks: no check at the end.
func openTestBroken(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// FuzzOpen puts bytes somewhere into a good file.
func FuzzOpen(f *testing.F) {
	dir := memoryDir(f)
	good := sample(f, dir)
	for at := 0; at < len(good); at += 1777 {
		f.Add(uint32(at), []byte{0xff, 0xff}, uint32(len(good)))
	}
	f.Add(uint32(0), []byte{}, uint32(3*pageSize))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, length uint32) {
		data := bytes.Clone(good[:min(int(length), len(good))])
		if int(at) < len(data) {
			copy(data[at:], patch)
		}
		tryDamaged(t, filepath.Join(dir, "fuzz.db"), data)
	})
}
