package main

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// table is how both SQL databases keep events: one table with the columns of all
// types. Addresses are raw bytes, which is smallest; an id is two columns.
type table struct {
	columns []tableColumn
	places  map[string][]int // by type: where each column of the table stands in it, -1 when it does not
}

type tableColumn struct {
	name string
	kind event.Kind
}

// scopeSuffix names the column that holds the scope of an id.
const scopeSuffix = "_scope"

func newTable(types []*event.Type) *table {
	t := &table{places: make(map[string][]int)}
	known := make(map[string]bool)
	for _, declared := range types {
		for _, c := range declared.Columns {
			if !known[c.Name] {
				known[c.Name] = true
				t.columns = append(t.columns, tableColumn{c.Name, c.Kind})
			}
		}
	}
	for _, declared := range types {
		for _, c := range t.columns {
			place, ok := declared.Column(c.name)
			if !ok {
				place = -1
			}
			t.places[declared.Name] = append(t.places[declared.Name], place)
		}
	}
	return t
}

// create returns the statement that makes the table.
func (t *table) create() string {
	var b strings.Builder
	b.WriteString("CREATE TABLE IF NOT EXISTS events (type TEXT NOT NULL")
	for _, c := range t.columns {
		switch c.kind {
		case event.KindString:
			b.WriteString(", " + c.name + " TEXT")
		case event.KindIP:
			b.WriteString(", " + c.name + " BLOB")
		case event.KindID:
			b.WriteString(", " + c.name + scopeSuffix + " TEXT, " + c.name + " BIGINT")
		default:
			b.WriteString(", " + c.name + " BIGINT")
		}
	}
	return b.String() + ")"
}

// width is the number of columns with the type.
func (t *table) width() int { return strings.Count(t.create(), ",") + 1 }

// values sets dst to the values of an event, in the order of create.
func (t *table) values(dst []driver.Value, r event.Row) []driver.Value {
	dst = append(dst[:0], r.Batch.Type.Name)
	for i, place := range t.places[r.Batch.Type.Name] {
		kind := t.columns[i].kind
		switch kind {
		case event.KindTime, event.KindInt:
			dst = append(dst, nil)
			if place >= 0 {
				if n, ok := r.Int(place); ok {
					dst[len(dst)-1] = n
				}
			}
			continue
		case event.KindID:
			dst = append(dst, nil)
		}
		dst = append(dst, nil)
		if place < 0 {
			continue
		}
		s, ok := r.String(place)
		switch {
		case !ok:
		case kind == event.KindID:
			dst[len(dst)-2], dst[len(dst)-1] = s, r.Batch.Columns[place].Ints[r.Index]
		case kind == event.KindIP:
			dst[len(dst)-1] = []byte(s)
		default:
			dst[len(dst)-1] = s
		}
	}
	return dst
}

// tableRow is an event read from the table.
type tableRow struct {
	table   *table
	typ     string
	numbers []sql.NullInt64  // by column
	texts   []sql.NullString // by column
	types   map[string]*event.Type
}

// target returns the row and where Scan has to write, in the order of create.
func (t *table) target() (*tableRow, []any) {
	r := &tableRow{table: t, numbers: make([]sql.NullInt64, len(t.columns)), texts: make([]sql.NullString, len(t.columns)), types: make(map[string]*event.Type)}
	for _, declared := range stream.Types() {
		r.types[declared.Name] = declared
	}
	to := []any{&r.typ}
	for i, c := range t.columns {
		switch c.kind {
		case event.KindTime, event.KindInt:
			to = append(to, &r.numbers[i])
		case event.KindID:
			to = append(to, &r.texts[i], &r.numbers[i])
		default:
			to = append(to, &r.texts[i])
		}
	}
	return r, to
}

// Values implements row: Scan has read them.
func (r *tableRow) Values() int {
	n := 1
	for i, c := range r.table.columns {
		if r.texts[i].Valid || r.numbers[i].Valid && c.kind != event.KindID {
			n++
		}
	}
	return n
}

// AppendJSON implements row.
func (r *tableRow) AppendJSON(dst []byte) []byte {
	b := event.NewBatch(r.types[r.typ], 1)
	b.Append(r.numbers[0].Int64)
	for i, place := range r.table.places[r.typ] {
		switch kind := r.table.columns[i].kind; {
		case place < 0 || !r.texts[i].Valid && !r.numbers[i].Valid:
		case kind == event.KindInt:
			b.SetInt(place, r.numbers[i].Int64)
		case kind == event.KindString, kind == event.KindIP:
			b.SetString(place, r.texts[i].String)
		case kind == event.KindID:
			b.SetID(place, r.texts[i].String, r.numbers[i].Int64)
		}
	}
	return event.Row{Batch: b}.AppendJSON(dst)
}

// sqlPeer answers questions with SQL that SQLite and DuckDB both understand.
type sqlPeer struct {
	db    *sql.DB
	table *table
}

// where returns the condition for a window and filters, with its arguments.
func (p *sqlPeer) where(types []*event.Type, w query.Window, filters query.Filters) (string, []any) {
	since, until := w.Bounds()
	condition, args := "", []any(nil)
	add := func(part string, arg any) {
		condition, args = condition+" AND "+part, append(args, arg)
	}
	if !w.Since.IsZero() {
		add("time >= ?", since)
	}
	if !w.Until.IsZero() {
		add("time < ?", until)
	}
	if len(types) == 1 {
		add("type = ?", types[0].Name)
	}
	for _, f := range filters {
		column, _ := types[0].Column(f.Column)
		var arg any = f.Values[0]
		switch types[0].Columns[column].Kind {
		case event.KindInt:
			arg, _ = strconv.ParseInt(f.Values[0], 10, 64) // the questions are good
		case event.KindIP:
			raw, _ := event.ParseIP(f.Values[0])
			arg = []byte(raw)
		}
		add(f.Column+" = ?", arg)
	}
	if condition == "" {
		return "", nil
	}
	return " WHERE" + strings.TrimPrefix(condition, " AND"), args
}

// Events orders by time and then as the events came. The store puts the type in
// between, but events of the same nanosecond come in batches by type anyway, and
// an index can do this order without sorting.
func (p *sqlPeer) Events(q query.Events, do func(row) error) error {
	where, args := p.where(q.Types, q.Window, q.Filters)
	text := "SELECT * FROM events" + where + " ORDER BY time DESC, rowid DESC"
	if q.Ascending {
		text = strings.ReplaceAll(text, " DESC", "")
	}
	if q.Limit > 0 {
		text += " LIMIT " + strconv.Itoa(q.Limit)
	}
	rows, err := p.db.Query(text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	r, to := p.table.target()
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := do(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (p *sqlPeer) Summary(q question) ([]figures, error) {
	where, args := p.where([]*event.Type{q.summary.Type}, q.summary.Window, q.summary.Filters)
	found, err := p.db.Query(summaryText(q, where), args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []figures
	for found.Next() {
		line, err := summaryRow(q, found)
		if err != nil {
			return nil, err
		}
		rows = append(rows, line)
	}
	return rows, found.Err()
}

func summaryText(q question, where string) string {
	if q.summary.Interval > 0 {
		by := q.summary.Type.Breakdown
		return fmt.Sprintf("SELECT %s, count(*) AS n, time - time %% %d AS bucket FROM events%s GROUP BY bucket, %s ORDER BY bucket, %s", by, q.summary.Interval, where, by, by)
	}
	by := q.summary.GroupBy[0]
	text := "SELECT " + by + ", count(*) AS n"
	for _, column := range q.sums {
		text += ", CAST(coalesce(sum(" + column + "), 0) AS BIGINT)"
	}
	return text + fmt.Sprintf(" FROM events%s GROUP BY %s ORDER BY n DESC, %s IS NULL, %s LIMIT %d", where, by, by, by, q.summary.Top)
}

func summaryRow(q question, found *sql.Rows) (figures, error) {
	var key sql.NullString
	var count, bucket int64
	to := []any{&key, &count}
	sums := make([]int64, len(q.sums))
	for i := range sums {
		to = append(to, &sums[i])
	}
	if q.summary.Interval > 0 {
		to = append(to, &bucket)
	}
	if err := found.Scan(to...); err != nil {
		return figures{}, err
	}
	if q.summary.Interval > 0 {
		return figures{time: time.Unix(0, bucket), key: key.String, count: count}, nil
	}
	by, _ := q.summary.Type.Column(q.summary.GroupBy[0])
	switch {
	case !key.Valid:
		key.String = noValue
	case q.summary.Type.Columns[by].Kind == event.KindIP:
		ip, _ := netip.AddrFromSlice([]byte(key.String))
		key.String = ip.String()
	}
	return figures{key: key.String, count: count, sums: sums}, nil
}
