package packetdrop

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	// windowLength is how long like drops are added up before there is an event.
	windowLength = time.Second
	// tallyBatch is how many kinds of drops are taken from the kernel at once.
	tallyBatch = 512
)

// windows are the maps in which the eBPF side adds up like drops: one is open,
// the other is empty. See bpf/include/packet_drop_flood.h.
type windows struct {
	second bool // window_b is open, not window_a
	opened time.Time
}

// Collect implements bpf.Collector: it closes the open window when its time is
// over, or when somebody waits for what is in it.
func (d *decoder) Collect(from *ebpf.Collection, all bool, to *event.Batch) error {
	var kinds, counted uint32
	err := errors.Join(from.Variables[packetDropVarKinds].Get(&kinds), from.Variables[packetDropVarCounted].Get(&counted))
	if err != nil {
		return fmt.Errorf("look at the window of drops: %w", err)
	}
	asked := all && counted > 0
	over := kinds > 0 && time.Since(d.windows.opened) >= windowLength
	if !asked && !over {
		return nil
	}
	closed, err := d.windows.next(from)
	if err != nil {
		return fmt.Errorf("close the window of drops: %w", err)
	}
	if err := d.take(closed, to); err != nil {
		return fmt.Errorf("read the window of drops: %w", err)
	}
	return nil
}

// next opens the other window and returns the one that was open, which no eBPF
// program uses any longer.
func (w *windows) next(from *ebpf.Collection) (closed *ebpf.Map, err error) {
	// Before the other is open, so that no sign of what comes into it is lost.
	if err := mark(from, 0); err != nil {
		return nil, err
	}
	closed, open := from.Maps[packetDropMapWindowA], from.Maps[packetDropMapWindowB]
	if w.second {
		closed, open = open, closed
	}
	if err := from.Maps[packetDropMapWindow].Put(uint32(0), open); err != nil {
		return nil, errors.Join(err, mark(from, 1)) // it is to be closed still
	}
	w.second, w.opened = !w.second, time.Now()
	return closed, nil
}

// mark says whether there is something in the open window.
func mark(from *ebpf.Collection, n uint32) error {
	return errors.Join(from.Variables[packetDropVarKinds].Set(n), from.Variables[packetDropVarCounted].Set(n))
}

// take empties a window. Kinds of which all drops were told one by one make no
// event. What is left there after an error comes when it is closed the next time.
func (d *decoder) take(closed *ebpf.Map, to *event.Batch) error {
	kinds, tallies := make([]packetDropDrop, tallyBatch), make([]packetDropTally, tallyBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := closed.BatchLookupAndDelete(&cursor, kinds, tallies, nil)
		for i := range n {
			if tallies[i].Count > 0 {
				d.append(&kinds[i], &tallies[i], to)
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) { // that was all
			return nil
		}
		if err != nil {
			return err
		}
	}
}
