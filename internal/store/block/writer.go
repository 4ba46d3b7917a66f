package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// Writer puts blocks together to one Parquet file, in which each is a row
// group: their pages are copied, compressed as they are, and what the footer
// says of them is made anew. The blocks may be of several types; a column that
// a block lacks becomes one that is absent in all its events. It writes from
// front to back, and keeps nothing but the footer. After an error the file is of
// no use.
type Writer struct {
	to     io.Writer
	schema schema
	offset int64
	footer format.FileMetaData
	group  pageWriter // of the row group at hand
	times  []int64    // of its events
}

// NewWriter begins a file with these columns, the first of which is time.
func NewWriter(to io.Writer, columns []event.Column) (*Writer, error) {
	encoder, err := NewEncoder()
	if err != nil {
		return nil, err
	}
	w := &Writer{to: to, schema: newSchema(columns), group: pageWriter{compressor: encoder.column.compressor}}
	f := &w.footer
	f.Version = 2
	f.CreatedBy = "ebpf-server version " + strconv.Itoa(Version)
	f.Schema = append(f.Schema, format.SchemaElement{Name: "events", NumChildren: thrift.New(int32(len(w.schema.columns)))})
	for i, c := range w.schema.columns {
		f.Schema = append(f.Schema, schemaElement(c.Name, c.Kind, w.schema.optional(i)))
		f.ColumnOrders = append(f.ColumnOrders, format.ColumnOrder{Value: new(format.TypeDefinedOrder)})
	}
	return w, w.write([]byte(magic))
}

func (w *Writer) write(data []byte) error {
	n, err := w.to.Write(data)
	w.offset += int64(n)
	if err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return nil
}

// Append adds a block, whose columns must all be among those of the file. More
// blocks may give further columns of the same events.
func (w *Writer) Append(data []byte, more ...[]byte) error {
	chunks := make([]sourceChunk, len(w.schema.columns))
	f, places, err := w.addChunks(chunks, data)
	if err == nil {
		err = w.readTimes(data, f, places)
	}
	for i := 0; i < len(more) && err == nil; i++ {
		var other *footer
		if other, _, err = w.addChunks(chunks, more[i]); err == nil && other.rows != f.rows {
			err = fmt.Errorf("further columns are of %d events instead of %d", other.rows, f.rows)
		}
	}
	if err != nil {
		return fmt.Errorf("append block: %w", err)
	}
	w.group.out = w.group.out[:0]
	group := w.rowGroup(f.rows)
	for i, chunk := range chunks {
		m, err := w.appendColumn(i, chunk.meta, chunk.data, int(f.rows))
		if err != nil {
			return fmt.Errorf("append block: column %s: %w", w.schema.columns[i].Name, err)
		}
		group.Columns = append(group.Columns, format.ColumnChunk{MetaData: *m})
		group.TotalByteSize += m.TotalUncompressedSize
		group.TotalCompressedSize += m.TotalCompressedSize
	}
	w.describe(&group, string(f.typeName))
	if err := w.write(w.group.out); err != nil {
		return err
	}
	w.footer.NumRows += f.rows
	w.footer.RowGroups = append(w.footer.RowGroups, group)
	return nil
}

// sourceChunk is a column of a block that is appended.
type sourceChunk struct {
	meta *format.ColumnMetaData // nil: no block has it
	data []byte                 // the block
}

// addChunks notes those columns of a block that no block before it had.
func (w *Writer) addChunks(chunks []sourceChunk, data []byte) (*footer, []int, error) {
	f, err := readFooter(data)
	if err != nil {
		return nil, nil, err
	}
	if err := f.check(string(f.typeName)); err != nil {
		return nil, nil, err
	}
	places, err := w.schema.places(f)
	if err != nil {
		return nil, nil, err
	}
	meta, err := readMetaData(data)
	if err != nil {
		return nil, nil, err
	}
	for i, at := range places {
		if chunks[at].meta == nil {
			chunks[at] = sourceChunk{&meta.RowGroups[0].Columns[i].MetaData, data}
		}
	}
	return f, places, nil
}

// Close ends the file with its footer. It leaves the underlying writer open.
func (w *Writer) Close() error {
	footer, err := thrift.Marshal(new(thrift.CompactProtocol), &w.footer)
	if err != nil {
		return fmt.Errorf("write Parquet: write footer: %w", err)
	}
	if len(footer) > math.MaxInt32 {
		return errors.New("write Parquet: footer is too long; export a shorter window")
	}
	footer = binary.LittleEndian.AppendUint32(footer, uint32(len(footer)))
	return w.write(append(footer, magic...))
}

func (w *Writer) rowGroup(rows int64) format.RowGroup {
	return format.RowGroup{
		NumRows: rows, FileOffset: w.offset,
		SortingColumns: []format.SortingColumn{{ColumnIdx: event.Time}},
		// There is no room for more; readers go by the order of the row groups.
		Ordinal: int16(min(len(w.footer.RowGroups), math.MaxInt16)),
	}
}

// appendColumn adds a column to the row group. What the block says of it is in
// m, which is nil if the block lacks it, and is returned as it is here.
func (w *Writer) appendColumn(i int, m *format.ColumnMetaData, data []byte, rows int) (_ *format.ColumnMetaData, err error) {
	begin := len(w.group.out)
	if m == nil {
		m = &format.ColumnMetaData{Type: physicalType(w.schema.columns[i].Kind), Encoding: []format.Encoding{format.RLE, format.Plain}, NumValues: int64(rows)}
		m.Statistics.NullCount = int64(rows)
		err = w.group.append(m, absentPage(rows))
	} else {
		chunk := columnChunk{data: m.DataPageOffset, dictionary: m.DictionaryPageOffset, size: m.TotalCompressedSize}
		var begin, end int
		if begin, end, err = chunk.bounds(len(data)); err == nil {
			err = w.group.copy(m, data[begin:end])
		}
	}
	m.PathInSchema = w.schema.paths[i]
	m.TotalCompressedSize = int64(len(w.group.out) - begin)
	m.DataPageOffset += w.offset
	if m.DictionaryPageOffset >= 0 {
		m.DictionaryPageOffset += w.offset
	} else {
		m.DictionaryPageOffset = 0 // there is none
	}
	return m, err
}

// describe says what helps a reader to leave out the row group: the span of
// time, and the type.
func (w *Writer) describe(group *format.RowGroup, typeName string) {
	s := &group.Columns[event.Time].MetaData.Statistics
	s.MinValue = binary.LittleEndian.AppendUint64(nil, uint64(w.times[0]))
	s.MaxValue = binary.LittleEndian.AppendUint64(nil, uint64(w.times[len(w.times)-1]))
	s = &group.Columns[placeOfType].MetaData.Statistics
	s.MinValue, s.MaxValue = []byte(typeName), []byte(typeName)
}

// readMetaData returns all that the footer of a file says. The file is one that
// readFooter has read.
func readMetaData(data []byte) (*format.FileMetaData, error) {
	end := len(data) - 4 - len(magic)
	begin := end - int(binary.LittleEndian.Uint32(data[end:]))
	meta := new(format.FileMetaData)
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), data[begin:end], meta); err != nil {
		return nil, fmt.Errorf("read footer: %w", err)
	}
	return meta, nil
}

func (w *Writer) readTimes(data []byte, f *footer, places []int) error {
	chunk := f.chunks[slices.Index(places, event.Time)]
	begin, end, err := chunk.bounds(len(data))
	if err != nil {
		return fmt.Errorf("column time: %w", err)
	}
	w.times = sized(w.times, int(f.rows))
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	c := column{kind: event.KindTime, begin: begin, end: end, file: data[begin:end], codec: chunk.codec}
	err = c.eachPage(len(w.times), func(p *page, first int) error {
		return c.decode(&event.Vector{Ints: w.times[first : first+p.rows]}, p, nil, s)
	})
	if err != nil {
		return fmt.Errorf("column time: %w", err)
	}
	return nil
}
