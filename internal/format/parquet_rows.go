package format

import (
	"bufio"
	"io"

	"github.com/srodi/ebpf-server/internal/event"
)

// gatherRows is how many events of a type are taken over together: one by one
// takes much longer, and each batch that they come from stays in memory meanwhile.
const gatherRows = 4096

// parquetRows is a ParquetWriter of single events.
type parquetRows struct {
	*ParquetWriter
	out     *bufio.Writer
	waiting []*waitingRows // by type
}

// waitingRows are those of one batch that came one after the other.
type waitingRows struct {
	from *event.Batch
	rows []int32
}

func newParquetRows(w io.Writer, types []*event.Type, fields []string) (*parquetRows, error) {
	out := bufio.NewWriterSize(w, 1<<16)
	p, err := NewParquetWriter(out, types, fields...)
	return &parquetRows{ParquetWriter: p, out: out}, err
}

func (p *parquetRows) Write(row event.Row) error {
	w := p.of(row.Batch.Type)
	if w.from != row.Batch || len(w.rows) == gatherRows {
		if err := p.take(w); err != nil {
			return err
		}
		w.from = row.Batch
	}
	w.rows = append(w.rows, int32(row.Index))
	return nil
}

func (p *parquetRows) of(t *event.Type) *waitingRows {
	for _, w := range p.waiting {
		if w.from != nil && w.from.Type == t {
			return w
		}
	}
	w := new(waitingRows)
	p.waiting = append(p.waiting, w)
	return w
}

func (p *parquetRows) take(w *waitingRows) error {
	if len(w.rows) == 0 {
		return nil
	}
	b := event.NewBatch(w.from.Type, len(w.rows))
	b.AppendRows(w.from, w.rows)
	w.rows = w.rows[:0]
	return p.Batch(b)
}

func (p *parquetRows) Close() error {
	for _, w := range p.waiting {
		if err := p.take(w); err != nil {
			return err
		}
	}
	if err := p.ParquetWriter.Close(); err != nil {
		return err
	}
	return p.out.Flush()
}
