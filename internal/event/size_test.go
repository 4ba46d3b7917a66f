package event

import (
	"fmt"
	"runtime"
	"testing"
)

// Size is near what the memory says.
func TestSize(t *testing.T) {
	wide := MustType(Type{Name: "wide", Collection: "wides", Summary: "Wide.", Breakdown: "state", Columns: []Column{
		{Name: "state", Kind: KindString, Description: "State."},
		{Name: "number", Kind: KindInt, Description: "Number."},
	}})
	for _, rows := range []int{1, 1000} {
		const batches = 200
		kept := make([]*Batch, batches)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range kept {
			kept[i] = NewBatch(wide, rows)
			for row := range rows {
				kept[i].Append(int64(row))
				kept[i].SetString(wide.MustColumn("state"), fmt.Sprint("state ", row%100))
				kept[i].SetString(Command, "curl")
				kept[i].SetInt(wide.MustColumn("number"), int64(row))
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		got, real := kept[0].Size(), int(after.HeapAlloc-before.HeapAlloc)/batches
		if got < real*3/4 || got > real*3/2 {
			t.Errorf("%d rows: Size is %d, %d bytes were taken", rows, got, real)
		}
		runtime.KeepAlive(kept)
	}
}
