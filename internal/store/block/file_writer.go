package block

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// fileWriter puts pages together to a Parquet file.
type fileWriter struct {
	out    []byte
	begin  int // of the file in out
	footer format.FileMetaData
	page   format.PageHeader
	thrift *thrift.Encoder
}

// Write is for the Thrift encoder.
func (w *fileWriter) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

func (w *fileWriter) start(dst []byte, t *event.Type, rows int) {
	if w.thrift == nil {
		w.thrift = thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(w))
	}
	w.begin = len(dst)
	w.out = append(dst, magic...) //nolint:gocritic // dst is the caller's and is handed back longer
	f := &w.footer
	f.Version = 2
	f.CreatedBy = "ebpf-server version " + strconv.Itoa(Version)
	f.NumRows = int64(rows)
	f.Schema = append(f.Schema[:0], format.SchemaElement{Name: t.Name})
	f.KeyValueMetadata = append(f.KeyValueMetadata[:0], format.KeyValue{Key: keyType, Value: t.Name}, format.KeyValue{Key: keyVersion, Value: strconv.Itoa(Version)})
	if f.RowGroups == nil {
		f.RowGroups = make([]format.RowGroup, 1)
	}
	f.RowGroups[0] = format.RowGroup{
		Columns: f.RowGroups[0].Columns[:0], NumRows: int64(rows), FileOffset: int64(len(magic)),
		SortingColumns: []format.SortingColumn{{ColumnIdx: event.Time}},
	}
}

func (w *fileWriter) offset() int64 { return int64(len(w.out) - w.begin) }

// appendColumn writes the pages of a column, compressed if that is worth while.
func (w *fileWriter) appendColumn(e *columnEncoder, name string, kind event.Kind, optional bool) error {
	m := format.ColumnMetaData{
		Type: physicalType(kind), PathInSchema: []string{name}, NumValues: int64(e.rows),
		Encoding: []format.Encoding{format.RLE, e.encoding}, Codec: format.Uncompressed,
	}
	m.Statistics.NullCount = int64(e.nulls)
	plain, compressed := 0, 0
	for _, p := range e.pages {
		plain, compressed = plain+len(p.values), compressed+len(p.compressed)
	}
	// A page that is not compressed is quicker to read.
	if compressed < plain-plain/32 {
		m.Codec = format.Zstd
	}
	begin := w.offset()
	for i := range e.pages {
		p := &e.pages[i]
		if p.kind == format.DictionaryPage {
			m.DictionaryPageOffset = begin
			m.Encoding = append(m.Encoding, format.Plain)
		} else if m.DataPageOffset == 0 {
			m.DataPageOffset = w.offset()
		}
		size, err := w.appendPage(p, m.Codec)
		if err != nil {
			return err
		}
		m.TotalUncompressedSize += size
	}
	m.TotalCompressedSize = w.offset() - begin

	group := &w.footer.RowGroups[0]
	group.TotalByteSize += m.TotalUncompressedSize
	group.TotalCompressedSize += m.TotalCompressedSize
	group.Columns = append(group.Columns, format.ColumnChunk{MetaData: m})
	w.footer.Schema = append(w.footer.Schema, schemaElement(name, kind, optional))
	return nil
}

// appendPage returns the size of the page, header included, before compression.
func (w *fileWriter) appendPage(p *encodedPage, codec format.CompressionCodec) (int64, error) {
	values := p.values
	if codec == format.Zstd {
		values = p.compressed
	}
	h := &w.page
	*h = format.PageHeader{
		Type:                 p.kind,
		UncompressedPageSize: int32(len(p.levels) + len(p.values)),
		CompressedPageSize:   int32(len(p.levels) + len(values)),
	}
	if p.kind == format.DictionaryPage {
		h.DictionaryPageHeader = thrift.New(format.DictionaryPageHeader{NumValues: int32(p.rows), Encoding: p.encoding})
	} else {
		h.DataPageHeaderV2 = thrift.New(format.DataPageHeaderV2{
			NumValues: int32(p.rows), NumNulls: int32(p.nulls), NumRows: int32(p.rows), Encoding: p.encoding,
			DefinitionLevelsByteLength: int32(len(p.levels)), Statistics: format.Statistics{NullCount: int64(p.nulls)},
		})
	}
	begin := w.offset()
	if err := w.thrift.Encode(h); err != nil {
		return 0, fmt.Errorf("write page header: %w", err)
	}
	header := w.offset() - begin
	w.out = append(append(w.out, p.levels...), values...)
	return header + int64(h.UncompressedPageSize), nil
}

func (w *fileWriter) finish() ([]byte, error) {
	begin := len(w.out)
	w.footer.Schema[0].NumChildren = thrift.New(int32(len(w.footer.RowGroups[0].Columns)))
	if err := w.thrift.Encode(&w.footer); err != nil {
		return w.out[:w.begin], fmt.Errorf("encode block: write footer: %w", err)
	}
	w.out = binary.LittleEndian.AppendUint32(w.out, uint32(len(w.out)-begin))
	out := append(w.out, magic...) //nolint:gocritic // it is the caller's from here on
	w.out = nil
	return out, nil
}

func schemaElement(name string, kind event.Kind, optional bool) format.SchemaElement {
	e := format.SchemaElement{Name: name, Type: thrift.New(physicalType(kind)), RepetitionType: thrift.New(format.Required)}
	if optional {
		e.RepetitionType = thrift.New(format.Optional)
	}
	switch kind {
	case event.KindTime:
		e.LogicalType.Value = &format.TimestampType{IsAdjustedToUTC: true, Unit: format.TimeUnit{Value: new(format.NanoSeconds)}}
	case event.KindInt:
	default:
		e.LogicalType.Value = new(format.StringType)
		e.ConvertedType = thrift.New(deprecated.UTF8)
	}
	return e
}
