package block

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// pageWriter gathers the pages of a row group. All columns become ones that are
// compressed, though their pages of data need not be: parquet-go takes a column
// of all row groups to be compressed as that of the first one is.
type pageWriter struct {
	compressor *zstd.Encoder
	out        []byte
	thrift     *thrift.Encoder
}

// Write is for the Thrift encoder.
func (w *pageWriter) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// noPage is the offset of a dictionary that a column has not.
const noPage = -1

// copy adds the pages of a column, of which m says how they are in a block, and
// changes m to how they are here: offsets count from the row group's beginning.
func (w *pageWriter) copy(m *format.ColumnMetaData, pages []byte) error {
	switch m.Codec {
	case format.Zstd:
		first := m.DataPageOffset
		if m.DictionaryPageOffset > 0 {
			first = min(first, m.DictionaryPageOffset)
		}
		moved := int64(len(w.out)) - first
		m.DataPageOffset += moved
		if m.DictionaryPageOffset > 0 {
			m.DictionaryPageOffset += moved
		} else {
			m.DictionaryPageOffset = noPage
		}
		w.out = append(w.out, pages...)
		return nil
	case format.Uncompressed:
	default:
		return fmt.Errorf("it is compressed by %v, which a block is not", m.Codec)
	}
	var all []encodedPage
	for len(pages) > 0 {
		p, rest, err := nextPage(pages)
		if err != nil {
			return err
		}
		pages = rest
		all = append(all, encodedPage{kind: p.kind, encoding: p.encoding, rows: p.rows, nulls: p.nulls, levels: p.levels, values: p.body})
	}
	return w.append(m, all...)
}

// append adds the pages of a column and changes m accordingly.
func (w *pageWriter) append(m *format.ColumnMetaData, pages ...encodedPage) error {
	m.Codec = format.Zstd
	m.DataPageOffset, m.DictionaryPageOffset, m.TotalUncompressedSize = noPage, noPage, 0
	for i := range pages {
		begin := int64(len(w.out))
		if pages[i].kind == format.DictionaryPage {
			m.DictionaryPageOffset = begin
		} else if m.DataPageOffset == noPage {
			m.DataPageOffset = begin
		}
		size, err := w.appendPage(&pages[i])
		if err != nil {
			return fmt.Errorf("write page header: %w", err)
		}
		m.TotalUncompressedSize += size
	}
	return nil
}

// appendPage returns the size of the page, header included, before compression.
// Values of a page of data stay as they are; a dictionary cannot.
func (w *pageWriter) appendPage(p *encodedPage) (int64, error) {
	if w.thrift == nil {
		w.thrift = thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(w))
	}
	values := p.values
	h := format.PageHeader{Type: p.kind, UncompressedPageSize: int32(len(p.levels) + len(p.values))}
	if p.kind == format.DictionaryPage {
		values = w.compressor.EncodeAll(p.values, nil)
		h.DictionaryPageHeader = thrift.New(format.DictionaryPageHeader{NumValues: int32(p.rows), Encoding: p.encoding})
	} else {
		h.DataPageHeaderV2 = thrift.New(format.DataPageHeaderV2{
			NumValues: int32(p.rows), NumNulls: int32(p.nulls), NumRows: int32(p.rows), Encoding: p.encoding,
			DefinitionLevelsByteLength: int32(len(p.levels)), IsCompressed: thrift.New(false), Statistics: format.Statistics{NullCount: int64(p.nulls)},
		})
	}
	h.CompressedPageSize = int32(len(p.levels) + len(values))
	begin := len(w.out)
	if err := w.thrift.Encode(&h); err != nil {
		return 0, err
	}
	header := len(w.out) - begin
	w.out = append(append(w.out, p.levels...), values...)
	return int64(header) + int64(h.UncompressedPageSize), nil
}

// absentPage is a page of rows without a value.
func absentPage(rows int) encodedPage {
	run := append(binary.AppendUvarint(nil, uint64(rows)<<1), 0) // so many zeros
	return encodedPage{kind: format.DataPageV2, encoding: format.Plain, rows: rows, nulls: rows, levels: run}
}
