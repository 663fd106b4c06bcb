package store

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	crashChildEnv = "STORE_TEST_CRASH_CHILD"
	kills         = 40
)

// crashChild writes transactions until it is killed, and says each number on
// standard output once Update has returned.
func crashChild(path string) {
	db, err := Open(path, Options{LockTimeout: 10 * time.Second, Schema: crashSchema})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		var seq uint64
		err := db.Update(func(tx *Tx) (err error) {
			seq, err = crashWrite(tx)
			return err
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if _, err := fmt.Println(seq); err != nil {
			os.Exit(1)
		}
	}
}

var (
	crashLog    = NewLog[string]("crash")
	crashSchema = []Migration{{"first", func(tx *Tx) error { _, err := crashWrite(tx); return err }}}
)

// crashWrite adds one entry to the log, and its like to two rows of a table.
func crashWrite(tx *Tx) (uint64, error) {
	next := uint64(1)
	if last, err := crashLog.Last(tx); err == nil {
		next = last.Seq + 1
	}
	g := guest{Name: fmt.Sprint(next), Blob: make([]byte, next%7*1500)}
	for _, key := range []string{fmt.Sprint("row ", next%50), "newest"} {
		if _, err := guests.Put(tx, key, g); err != nil {
			return 0, err
		}
	}
	return crashLog.Append(tx, g.Name)
}

// TestKill kills a writing process again and again, on one file.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "killed.db")
	random := rand.New(rand.NewPCG(3, 4))
	acked, total := uint64(0), uint64(0)
	for i := range kills {
		answers := 1 + random.IntN(6) // not a time: a busy machine would make it too few
		if i%8 == 0 {
			answers = 0
		}
		if last := killOne(t, path, answers, time.Duration(random.IntN(30_000))*time.Microsecond); last > 0 {
			acked = last
		}
		db := openTest(t, path, crashSchema...)
		view(t, db, func(tx *Tx) error {
			entries, err := crashLog.Since(tx, 0, 0)
			if err != nil {
				return err
			}
			total = uint64(len(entries))
			// One more may be there: stored, and killed before it could say so.
			if total < acked {
				t.Fatalf("kill %d: %d acknowledged, %d there", i, acked, total)
			}
			for n, e := range entries {
				if e.Seq != uint64(n+1) || e.Value != fmt.Sprint(n+1) {
					t.Fatalf("kill %d: entry %d is %+v", i, n+1, e)
				}
			}
			newest, err := guests.Get(tx, "newest")
			if err != nil || newest.Value.Name != fmt.Sprint(total) {
				t.Fatalf("kill %d: a transaction is half there: log at %d, table at %s (%v)", i, total, newest.Value.Name, err)
			}
			return nil
		})
		if err := db.Check(); err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d transactions acknowledged, %d there", kills, acked, total)
	if acked < 2*kills {
		t.Errorf("only %d transactions: the kills came too early to show anything", acked)
	}
}

// killOne runs a writer and kills it some time after so many answers, which is after
// its start if there are none, and returns the last number it acknowledged.
func killOne(t *testing.T, path string, answers int, after time.Duration) (last uint64) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashChildEnv+"="+path)
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	note := func() bool {
		line, err := lines.ReadString('\n')
		if err != nil && err != io.EOF {
			t.Errorf("read from the child: %v", err)
		}
		if err != nil {
			return false // a line cut off was not said
		}
		if last, err = strconv.ParseUint(line[:len(line)-1], 10, 64); err != nil {
			t.Errorf("the child said %q", line)
		}
		return true
	}
	for range answers {
		if !note() {
			t.Error("the child ended by itself")
		}
	}
	killer := time.AfterFunc(after, func() { _ = child.Process.Kill() })
	for note() {
	}
	killer.Stop()
	_ = child.Process.Kill()
	_ = child.Wait() // killed: it is an error by design
	return last
}
