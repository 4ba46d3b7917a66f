//go:build cgo

package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"path/filepath"
	"strings"

	"github.com/mattn/go-sqlite3"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// sqlitePeer is SQLite as one would tune it for this: a write-ahead log that is
// synced with each transaction, an index for each kind of question, a cache.
type sqlitePeer struct {
	sqlPeer
	name   string              // of the file, with its settings
	writer *sqlite3.SQLiteConn // below database/sql, which costs as much as the insert itself
	insert *sqlite3.SQLiteStmt
}

const sqliteSettings = "?_journal_mode=WAL&_synchronous=FULL&_cache_size=-65536"

var sqliteIndexes = []string{
	"CREATE INDEX IF NOT EXISTS by_time ON events (time)",
	"CREATE INDEX IF NOT EXISTS by_command ON events (command, time)",
	"CREATE INDEX IF NOT EXISTS by_pid ON events (pid, time)",
	"CREATE INDEX IF NOT EXISTS by_destination ON events (destination_ip, time)",
}

func openSQLite(dir string) (peer, error) {
	name := "file:" + filepath.Join(dir, "events.sqlite") + sqliteSettings
	db, err := sql.Open("sqlite3", name)
	if err != nil {
		return nil, err
	}
	p := &sqlitePeer{sqlPeer: sqlPeer{db: db, table: newTable(stream.Types())}, name: name}
	for _, statement := range append([]string{p.table.create()}, sqliteIndexes...) {
		if _, err := db.Exec(statement); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return p, nil
}

func (p *sqlitePeer) Ingest(batches []*event.Batch) error {
	if p.writer == nil {
		if err := p.startWriting(); err != nil {
			return err
		}
	}
	if _, err := p.writer.Exec("BEGIN", nil); err != nil {
		return err
	}
	var values []driver.Value
	args := make([]driver.NamedValue, p.table.width())
	for _, b := range batches {
		for i := range b.Len() {
			values = p.table.values(values, event.Row{Batch: b, Index: i})
			for k, v := range values {
				args[k] = driver.NamedValue{Ordinal: k + 1, Value: v}
			}
			if _, err := p.insert.ExecContext(context.Background(), args); err != nil {
				return err
			}
		}
	}
	_, err := p.writer.Exec("COMMIT", nil)
	return err
}

func (p *sqlitePeer) startWriting() error {
	conn, err := p.db.Driver().Open(p.name)
	if err != nil {
		return err
	}
	p.writer = conn.(*sqlite3.SQLiteConn)
	places := strings.Repeat("?, ", p.table.width()-1) + "?"
	insert, err := p.writer.Prepare("INSERT INTO events VALUES (" + places + ")")
	if err != nil {
		return err
	}
	p.insert = insert.(*sqlite3.SQLiteStmt)
	return nil
}

// Close also does what one does after much was written.
func (p *sqlitePeer) Close() error {
	var err error
	if p.writer != nil {
		err = errors.Join(p.insert.Close(), p.writer.Close())
		for _, statement := range []string{"PRAGMA analysis_limit=1000", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"} {
			_, e := p.db.Exec(statement)
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, p.db.Close())
}
