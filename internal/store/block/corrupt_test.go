package block_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// readAll reads a block in every way there is.
func readAll(data []byte, rows ...int32) (*event.Batch, error) {
	b, err := block.Open(data, connectionType)
	if err != nil {
		return nil, err
	}
	if _, err := b.ReadRows(columnsOf(connectionType), rows); err != nil {
		return nil, err
	}
	return b.Read(columnsOf(connectionType))
}

func TestOpenRefuses(t *testing.T) {
	good := encode(t, newHost(6).batch(100))
	replace := func(old, now string) []byte {
		if !bytes.Contains(good, []byte(old)) || len(old) != len(now) {
			t.Fatalf("cannot put %q for %q", now, old)
		}
		return bytes.ReplaceAll(good, []byte(old), []byte(now))
	}
	footerSize := func(n uint32) []byte {
		data := slices.Clone(good)
		binary.LittleEndian.PutUint32(data[len(data)-8:], n)
		return data
	}
	version := replace("ebpf-server.version\x18\x011", "ebpf-server.version\x18\x012")
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":            {nil, "not a Parquet file"},
		"the magic only":     {[]byte("PAR1PAR1"), "not a Parquet file"},
		"half":               {good[:len(good)/2], "not a Parquet file"},
		"another beginning":  {append([]byte("PARE"), good[4:]...), "not a Parquet file"},
		"a footer too long":  {footerSize(1 << 31), "longer than the file"},
		"no footer":          {footerSize(0), "data ends early"},
		"half a footer":      {footerSize(500), "read footer"},
		"another type":       {replace("ebpf-server.type\x18\nconnection", "ebpf-server.type\x18\nconnectiom"), `type "connectiom"`},
		"a newer version":    {version, "use a newer ebpf-server"},
		"no version":         {replace("ebpf-server.version", "ebpf-server.versiom"), "import it"},
		"another program":    {foreign(t, 1, parquet.CreatedBy("pandas", "1", "1")), "import it"},
		"several row groups": {foreign(t, 2, ownMetadata...), "2 row groups"},
	} {
		if _, err := block.Open(test.data, connectionType); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want one that says %q", name, err, test.want)
		}
	}
}

// foreign is a file of the same columns as parquet-go's own writer makes it.
func foreign(t *testing.T, groups int, options ...parquet.WriterOption) []byte {
	t.Helper()
	var out bytes.Buffer
	w := parquet.NewGenericWriter[exported](&out, options...)
	command := "curl"
	for range groups {
		if _, err := w.Write([]exported{{Command: &command}, {}}); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var ownMetadata = []parquet.WriterOption{
	parquet.KeyValueMetadata("ebpf-server.type", "connection"), parquet.KeyValueMetadata("ebpf-server.version", "1"),
}

// Another program may write what looks like a block otherwise than this one.
func TestReadRefuses(t *testing.T) {
	for want, option := range map[string]parquet.WriterOption{
		"DATA_PAGE_V2": parquet.DataPageVersion(1),
		"SNAPPY":       parquet.Compression(&parquet.Snappy),
		"PLAIN":        parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.Plain),
	} {
		data := foreign(t, 1, append(ownMetadata, option)...)
		if _, err := readAll(data); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "column") {
			t.Errorf("error is %v, want one that names a column and says %q", err, want)
		}
	}
}

// A damaged block gives an error or other events, and nothing worse.
func TestDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, b := range []*event.Batch{extreme(), newHost(6).batch(300), random(r, 500)} {
		good := encode(t, b)
		for i := range 2_000 {
			data := slices.Clone(good)
			for range 1 + i%3 {
				data[r.IntN(len(data))] = byte(r.Uint32())
			}
			if i%10 == 0 {
				at := r.IntN(len(data))
				data = slices.Delete(data, at, min(len(data), at+1+r.IntN(9)))
			}
			got, err := readAll(data, 0, 2, 4)
			if err == nil {
				texts(got)
			}
		}
	}
}

// FuzzBlock reads anything, or good blocks with some bytes overwritten. What
// can be read can be written, and is the same when it is read again.
func FuzzBlock(f *testing.F) {
	blocks := [][]byte{encode(f, extreme()), encode(f, newHost(6).batch(50)), encode(f, random(rand.New(rand.NewPCG(9, 9)), 300))}
	f.Add(blocks[0], uint8(3), uint16(0))
	for i := range blocks {
		f.Add([]byte{}, uint8(i), uint16(0))
		f.Add([]byte{1, 2}, uint8(i), uint16(100))
	}
	e, err := block.NewEncoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, which uint8, at uint16) {
		if which < 3 {
			whole := slices.Clone(blocks[which])
			copy(whole[int(at)%len(whole):], data)
			data = whole
		}
		b, err := readAll(data, 0)
		if err != nil {
			return
		}
		sorted := event.Sort(b)
		again, err := e.Append(nil, sorted)
		if err != nil {
			t.Fatal(err)
		}
		second, err := readAll(again, 0)
		if err != nil {
			t.Fatal(err)
		}
		sameTexts(t, "read again", texts(second), texts(sorted))
	})
}
