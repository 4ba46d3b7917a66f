package block

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
)

// The decoders are held against parquet-go's encoders.
func TestDecodeWhatIsEncoded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n, width := 1+r.IntN(3000), r.IntN(33)
		indexes, numbers, valid := make([]int32, n), make([]int64, n), make([]uint8, n)
		run := 1 + r.IntN(20)
		for i := range n {
			if i%run == 0 || r.IntN(3) == 0 {
				indexes[i] = int32(r.Uint64() & (1<<width - 1))
			} else {
				indexes[i] = indexes[i-1]
			}
			numbers[i] = int64(r.Uint64() >> r.IntN(64) >> (2 * width & 63))
			valid[i] = uint8(indexes[i] & 1)
		}
		if n > 2 {
			numbers[1], numbers[2] = math.MinInt64, math.MaxInt64
		}

		src, err := new(rle.DictionaryEncoding).EncodeInt32(nil, indexes)
		if err != nil {
			t.Fatal(err)
		}
		gotIndexes := make([]uint32, n)
		if err := decodeIndexes(gotIndexes, src); err != nil {
			t.Fatal(err)
		}
		for i := range indexes {
			if gotIndexes[i] != uint32(indexes[i]) {
				t.Fatalf("index %d of %d, %d bits wide: %d, want %d", i, n, src[0], gotIndexes[i], indexes[i])
			}
		}

		for _, wanted := range []uint32{gotIndexes[r.IntN(n)], gotIndexes[n-1], 0, 1, 1<<width - 1, r.Uint32()} {
			places, err := appendPlaces(nil, wanted, n, src)
			var want []int32
			for i, index := range gotIndexes {
				if index == wanted {
					want = append(want, int32(i))
				}
			}
			if err != nil || !slices.Equal(places, want) {
				t.Fatalf("index %d, %d bits wide, is at %v of %d: %v, want %v", wanted, src[0], places, n, err, want)
			}
		}

		if src, err = new(delta.BinaryPackedEncoding).EncodeInt64(nil, numbers); err != nil {
			t.Fatal(err)
		}
		gotNumbers := make([]int64, n)
		if err := decodeDelta(gotNumbers, n, src); err != nil || !slices.Equal(gotNumbers, numbers) {
			t.Fatalf("%d numbers are not the same: %v", n, err)
		}

		levels := rle.Encoding{BitWidth: 1}
		if src, err = levels.EncodeLevels(nil, valid); err != nil {
			t.Fatal(err)
		}
		gotValid, want := make([]bool, n), 0
		present, err := decodeLevels(gotValid, src)
		for i, level := range valid {
			want += int(level)
			if gotValid[i] != (level == 1) {
				t.Fatalf("level %d of %d is wrong", i, n)
			}
		}
		if err != nil || present != want {
			t.Fatalf("%d of %d present, want %d: %v", present, n, want, err)
		}
	}
}

func TestIPText(t *testing.T) {
	for text, want := range map[string]string{
		"1.2.3.4": "\x01\x02\x03\x04", "255.255.255.255": "\xff\xff\xff\xff", "0.0.0.0": "\x00\x00\x00\x00",
		"1.2.3": "", "1.2.3.": "", "1.2.3.4.5": "", "1.2.3.256": "", "01.2.3.4": "", "1..3.4": "", ".1.2.3": "", "": "", "1.2.3.4x": "",
		"::": "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "fe80::1%eth0": "",
	} {
		got, err := parseIP([]byte(text))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %x, %v", text, got, err)
		}
	}
}

// FuzzDecode gives the decoders anything; they must not write or read outside.
func FuzzDecode(f *testing.F) {
	indexes, _ := new(rle.DictionaryEncoding).EncodeInt32(nil, []int32{1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8})
	numbers, _ := new(delta.BinaryPackedEncoding).EncodeInt64(nil, []int64{1, 2, math.MinInt64, math.MaxInt64})
	f.Add(indexes, uint16(20))
	f.Add(numbers, uint16(4))
	f.Fuzz(func(_ *testing.T, src []byte, n uint16) {
		src = slices.Clip(src)
		_ = decodeIndexes(make([]uint32, n), src)
		_, _ = appendPlaces(nil, uint32(n)/4, int(n), src)
		_ = decodeDelta(make([]int64, n), int(n), src)
		_, _ = decodeLevels(make([]bool, n), src)
		_, _, _ = nextPage(src)
		var file footer
		file.read(&compact{data: src})
	})
}
