//go:build cgo

package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"path/filepath"

	"github.com/duckdb/duckdb-go/v2"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// duckdbPeer is DuckDB, a store by columns. It needs no indexes: it knows the
// span of the values of each group of rows.
type duckdbPeer struct {
	sqlPeer
	connector *duckdb.Connector
	writer    driver.Conn
	appender  *duckdb.Appender
}

// duckdbSettings let it keep more in its log than the 16 MB that are usual: with
// those it writes the last rows again and again, and takes twice the time and space.
const duckdbSettings = "?checkpoint_threshold=1GB"

func openDuckDB(dir string) (peer, error) {
	connector, err := duckdb.NewConnector(filepath.Join(dir, "events.duckdb")+duckdbSettings, nil)
	if err != nil {
		return nil, err
	}
	p := &duckdbPeer{sqlPeer: sqlPeer{db: sql.OpenDB(connector), table: newTable(stream.Types())}, connector: connector}
	if _, err := p.db.Exec(p.table.create()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *duckdbPeer) Ingest(batches []*event.Batch) (err error) {
	if p.appender == nil {
		if p.writer, err = p.connector.Connect(context.Background()); err != nil {
			return err
		}
		if p.appender, err = duckdb.NewAppenderFromConn(p.writer, "", "events"); err != nil {
			return err
		}
	}
	var values []driver.Value
	for _, b := range batches {
		for i := range b.Len() {
			values = p.table.values(values, event.Row{Batch: b, Index: i})
			if err := p.appender.AppendRow(values...); err != nil {
				return err
			}
		}
	}
	return p.appender.Flush()
}

// Close also moves what is in the log to the file.
func (p *duckdbPeer) Close() error {
	var err error
	if p.appender != nil {
		err = errors.Join(p.appender.Close(), p.writer.Close())
		_, e := p.db.Exec("CHECKPOINT")
		err = errors.Join(err, e)
	}
	return errors.Join(err, p.db.Close(), p.connector.Close())
}
