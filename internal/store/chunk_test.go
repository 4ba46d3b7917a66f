package store

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

func testCodec(t testing.TB) (*codec, *schemas) {
	t.Helper()
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c, &schemas{byNumber: map[uint32]*schema{1: schemaOf(flowType)}, latest: map[string]uint32{"flow": 1}}
}

func rowTexts(b *event.Batch) (rows []string) {
	for i := range b.Len() {
		rows = append(rows, string(event.Row{Batch: b, Index: i}.AppendJSON(nil)))
	}
	return rows
}

// reseal makes the checksum of a chunk right.
func reseal(value []byte) []byte {
	if len(value) >= 5 {
		binary.BigEndian.PutUint32(value[1:], crc32.Checksum(value[5:], castagnoli))
	}
	return value
}

func extremeBatch() *event.Batch {
	b := event.NewBatch(flowType, 0)
	for i, n := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64, math.MinInt64} {
		b.Append([]int64{math.MinInt64, -5, 0, 0, 7, math.MaxInt64}[i])
		b.SetInt(event.PID, n)
		b.SetID(colFlowID, "boot", n)
		b.SetIP(colAddress, netip.MustParseAddr([]string{"::1", "1.2.3.4"}[i%2]))
		b.SetString(event.Command, strings.Repeat("x", i*100))
	}
	b.Append(math.MaxInt64)
	return b
}

func TestChunkKeepsEverything(t *testing.T) {
	c, all := testCodec(t)
	r := rand.New(rand.NewPCG(3, 4))
	random := event.NewBatch(flowType, 0)
	for at := int64(0); random.Len() < 5000; at += r.Int64N(1000) {
		addFlow(random, at, r.Int64N(1<<40))
	}
	one := event.NewBatch(flowType, 1)
	one.Append(-1)
	for name, b := range map[string]*event.Batch{"extreme": extremeBatch(), "random": random, "one without values": one} {
		t.Run(name, func(t *testing.T) {
			value, ok := c.encode(b, 1)
			if !ok {
				t.Fatal("batch is too large")
			}
			k, err := c.open(value, all)
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.batch(flowType, allColumns(flowType))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(rowTexts(got), rowTexts(b)) {
				t.Error("events changed")
			}
			times := b.Columns[event.Time].Ints
			if k.rows != b.Len() || k.min != times[0] || k.max != times[len(times)-1] {
				t.Errorf("header is %+v", k.chunkHeader)
			}
		})
	}
}

func TestChunkDecodesOnlyWhatIsAskedFor(t *testing.T) {
	c, all := testCodec(t)
	value, _ := c.encode(extremeBatch(), 1)
	k, err := c.open(value, all)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.batch(flowType, []int{event.PID})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range b.Columns {
		if asked := i == event.Time || i == event.PID; (v.Ints != nil) != asked || v.Codes != nil {
			t.Errorf("column %d: decoded %v", i, v.Ints != nil || v.Codes != nil)
		}
	}
	if err := k.fill(b, allColumns(flowType)); err != nil || !slices.Equal(rowTexts(b), rowTexts(extremeBatch())) {
		t.Errorf("filling in the others: %v", err)
	}
}

func TestChunkLimits(t *testing.T) {
	c, _ := testCodec(t)
	rows := event.NewBatch(flowType, maxChunkRows+1)
	for i := range int64(maxChunkRows + 1) {
		rows.Append(i)
	}
	if _, ok := c.encode(rows, 1); ok {
		t.Error("too many rows are accepted")
	}
	large := event.NewBatch(flowType, 2)
	large.Append(1)
	large.SetString(event.Command, strings.Repeat("x", maxChunkBody))
	if _, ok := c.encode(large, 1); ok {
		t.Error("too large a body is accepted")
	}
}

// A batch that is too large for one chunk is split, and what fits in none is lost.
func TestEventsLargerThanAChunk(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	b := event.NewBatch(flowType, 0)
	for i := range int64(5) {
		addFlow(b, begin.UnixNano(), i)
		b.SetString(event.Command, strings.Repeat(string(rune('a'+i)), maxChunkBody/3))
	}
	addFlow(b, begin.UnixNano(), 5)
	b.SetString(event.Command, strings.Repeat("x", maxChunkBody+1))
	s.Append(b)
	flush(t, s)
	if got := typeStatus(s, "flow"); got.Events != 5 || got.Lost["write_failed"] != 1 {
		t.Errorf("flow is %+v", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	c, all := testCodec(t)
	good := func() []byte {
		value, _ := c.encode(extremeBatch(), 1)
		return value
	}
	// body makes a chunk of two events with a body of its own.
	body := func(bytes ...byte) []byte {
		b := event.NewBatch(flowType, 2)
		b.Append(0)
		b.Append(1)
		value, _ := c.encode(b, 1)
		return reseal(c.encoder.EncodeAll(bytes, value[:chunkHeaderSize]))
	}
	times := []byte{0, 2, 0, 1} // column 0, 2 bytes, differences 0 and 1
	column := func(i int, data ...byte) []byte {
		return body(append(append(times, byte(i), byte(len(data))), data...)...)
	}
	set := func(at int, bytes ...byte) []byte {
		value := good()
		copy(value[at:], bytes)
		return reseal(value)
	}
	tests := map[string]struct {
		value []byte
		want  string
	}{
		"nothing":                     {nil, "too short"},
		"a header only":               {reseal(good()[:chunkHeaderSize]), "ends early"},
		"half a header":               {good()[:chunkHeaderSize-1], "too short"},
		"another version":             {set(0, 2), "version 2"},
		"another checksum":            {append(good(), 0), "checksum"},
		"another schema":              {set(5, 0, 0, 0, 9), "schema 9"},
		"no rows":                     {set(9, 0, 0, 0, 0), "makes no sense"},
		"too many rows":               {set(9, 0, 1, 0, 1), "makes no sense"},
		"fewer rows":                  {set(9, 0, 0, 0, 3), "not those of the chunk's header"},
		"times the wrong way round":   {set(13, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), "makes no sense"},
		"another first time":          {set(20, 1), "time"},
		"no zstd":                     {set(chunkHeaderSize, 1, 2, 3, 4), "decompress"},
		"half a body":                 {reseal(good()[:chunkHeaderSize+20]), "decompress"},
		"a column that is not there":  {column(99, 1), "length 99 is above"},
		"the column behind the last":  {column(len(flowType.Columns), 1), "chunk has a column"},
		"a column that ends early":    {body(append(times, 1, 9, 1)...), "ends early"},
		"a length that ends early":    {body(append(times, 1, 0x80)...), "ends early"},
		"a bitmap that is too short":  {column(event.PID), ""}, // an empty column is an absent one
		"numbers that are missing":    {column(event.PID, 3, 2), "ends early"},
		"numbers too many":            {column(event.PID, 1, 2, 2), "too many"},
		"a dictionary that is longer": {column(event.Command, 3), "above 2"},
		"a text that ends early":      {column(event.Command, 1, 5, 'a'), "ends early"},
		"a code above the dictionary": {column(event.Command, 1, 1, 'a', 0, 2), "above 1"},
		"codes that are missing":      {column(event.Command, 1, 1, 'a', 0), "ends early"},
		"an address of three bytes":   {column(colAddress, 1, 3, 1, 2, 3, 0, 1), "3 bytes"},
		"an id without its number":    {column(colFlowID, 1, 1, 'a', 1, 0), "ends early"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k, err := c.open(test.value, all)
			if err == nil {
				_, err = k.batch(flowType, allColumns(flowType))
			}
			if test.want == "" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one that says %q", err, test.want)
			}
		})
	}
}

// FuzzChunk gives the decoder chunks with a right checksum and the body that
// the input decompresses to or is. Whatever it accepts it must also write again
// and read as the same.
func FuzzChunk(f *testing.F) {
	c, all := testCodec(f)
	for _, b := range []*event.Batch{extremeBatch(), flow(begin, 7)} {
		value, _ := c.encode(b, 1)
		f.Add(value, []byte(nil))
		f.Add(value, encodeBody(b))
	}
	f.Fuzz(func(t *testing.T, value, body []byte) {
		if len(body) > 0 && len(value) >= chunkHeaderSize {
			value = c.encoder.EncodeAll(body, slices.Clone(value[:chunkHeaderSize]))
		}
		k, err := c.open(reseal(slices.Clone(value)), all)
		if err != nil {
			return
		}
		b, err := k.batch(flowType, allColumns(flowType))
		if err != nil {
			return
		}
		joined := event.NewBatch(flowType, 0)
		joined.AppendRows(b, nil)
		again, ok := c.encode(joined, 1)
		if !ok {
			t.Fatal("what was read cannot be written")
		}
		k, err = c.open(again, all)
		if err != nil {
			t.Fatal(err)
		}
		second, err := k.batch(flowType, allColumns(flowType))
		if err != nil || !slices.Equal(rowTexts(second), rowTexts(b)) {
			t.Fatalf("what was written reads otherwise: %v", err)
		}
	})
}
