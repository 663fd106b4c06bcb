package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"
)

// sqlite is a database that stays open between requests.
type sqlite struct {
	in  io.Writer
	out *bufio.Reader
}

// rows of the table that is updated at random.
const rows = 20000

// schema makes a database with a write-ahead log that is synced at each commit,
// and a table of some megabytes.
const schema = `pragma journal_mode=wal; pragma synchronous=full;
create table if not exists account(id integer primary key, balance integer, note text);
create table if not exists journal(id integer primary key, account integer, note text);
with recursive n(i) as (select 1 union all select i+1 from n where i < %d)
insert or ignore into account select i, 0, hex(randomblob(64)) from n;
select 'ready';
`

func openSQLite() (*sqlite, error) {
	cmd := exec.Command("/usr/bin/sqlite3", "-batch", "/data/bench.db")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &sqlite{in: in, out: bufio.NewReader(out)}
	return s, s.do(fmt.Sprintf(schema, rows), "ready")
}

// do runs statements until one gives the word.
func (s *sqlite) do(statements, word string) error {
	if _, err := io.WriteString(s.in, statements); err != nil {
		return err
	}
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return errors.Join(errors.New("sqlite3 has ended"), err)
		}
		if strings.TrimSpace(line) == word {
			return nil
		}
	}
}

// transactions commits one after the other for so long: a row is added to one
// table, and one at random changed in another.
func (b *burden) transactions(span time.Duration) (result Result, err error) {
	if b.sqlite == nil {
		if b.sqlite, err = openSQLite(); err != nil {
			return result, err
		}
	}
	for began := time.Now(); time.Since(began) < span; {
		start, id := time.Now(), 1+rand.IntN(rows)
		err := b.sqlite.do(fmt.Sprintf("begin; insert into journal(account, note) values(%d, hex(randomblob(50))); "+
			"update account set balance = balance + 1, note = hex(randomblob(64)) where id = %d; commit; select 'done';\n", id, id), "done")
		if err != nil {
			return result, err
		}
		result.Took = append(result.Took, float64(time.Since(start).Nanoseconds())/1000)
		// The journal stays small: the disk is.
		if id%512 == 0 {
			if err := b.sqlite.do("delete from journal where id < (select max(id) from journal) - 2000; select 'swept';\n", "swept"); err != nil {
				return result, err
			}
		}
	}
	return result, nil
}
