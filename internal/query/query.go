// Package query says what can be asked about events and what is answered:
// windows, filters, groups, pages and coverage. It works on batches of events
// and does not know where they come from.
package query

import (
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// Window is a span of time, Since included and Until not. A zero Since reaches
// back to the oldest event, a zero Until forward without end.
type Window struct {
	Since, Until time.Time
}

// Events asks for single events.
type Events struct {
	Types     []*event.Type // at least one
	Window    Window
	Filters   Filters
	Limit     int  // at most so many events; 0 means all
	Ascending bool // oldest first; otherwise newest first
	Cursor    *Cursor
	Fields    []string // names of columns, or "type": the others are absent in the answer; none: all
	Total     bool     // count all events that match, on this page or not
}

// Summary asks for counts and sums of events of one type.
type Summary struct {
	Type     *event.Type
	Window   Window
	Filters  Filters
	GroupBy  []string      // up to three columns, networks ("destination_ip/24"), or "time" in steps of Interval: one list of groups
	Lists    []string      // names of columns: for each a list of its values
	Distinct []string      // names of columns: their different values are counted
	Sums     []string      // names of columns to be added up; nil: those that declare it
	Top      int           // at most so many groups in each list; 0 means all
	Interval time.Duration // 0: no series
	// Unweighted counts events, whatever they stand for (see event.Type.Weight).
	Unweighted bool

	OrderBy   string        // what the groups are ordered by, see order.go; empty: their count
	Ascending bool          // smallest first
	Stats     []string      // names of columns of numbers: how these are spread
	Compare   time.Duration // the same is asked of the window that begins so much earlier; 0: it is not
	FirstSeen bool          // only the groups of GroupBy that have no event before the window

	keysOnly bool  // only the figures that every summary has are told of groups
	shift    int64 // of an earlier question: what is to be added to numbers of intervals to compare them
}

// Page says how an answer of events ended.
type Page struct {
	Next     *Cursor // where the next page begins; nil when there is nothing more
	Prev     *Cursor // where the page before ends; nil when there is none
	Total    int64   // if it was asked for
	Coverage Coverage
}

// Piece is events of one type, for who can use a block of the store as it is.
type Piece struct {
	Type  *event.Type
	Rows  int
	Block []byte       // a block of package store/block, good until yield returns; nil: they are in Batch
	Batch *event.Batch // sorted by time, at most as many as a block has
}

// Coverage says how far an answer can be trusted: an empty answer can then be
// told from an hour that nobody watched.
type Coverage struct {
	// Complete is true when the whole window was recorded and nothing was lost in it.
	Complete bool             `json:"complete"`
	From     time.Time        `json:"from"`  // beginning of the window, or of what there is
	Until    time.Time        `json:"until"` // end of the window, or now
	Gaps     []Gap            `json:"gaps"`
	Lost     map[string]int64 `json:"lost"` // lost events by type; empty when none
	// Filtered is what rules left out on purpose, by type and by the kind of rule:
	// "excluded" (the configuration's) or "rule" (the program's own); empty when
	// none. It is known by the minute, and those that overlap the window count fully.
	Filtered map[string]map[string]int64 `json:"filtered"`
	Oldest   time.Time                   `json:"oldest,omitzero"` // oldest event or start of recording there is; zero when nothing was ever recorded (then left out of the JSON)
}

// Gap is a part of the window in which events were not recorded.
type Gap struct {
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
	Type   string    `json:"type,omitempty"` // the type that was not recorded; empty: none was
	Reason string    `json:"reason"`         // one of the Gap reasons
}

// Reasons for a gap.
const (
	GapNotRunning = "not_running" // the program did not run, or had not been installed yet
	GapCrashed    = "crashed"     // from the last sign of life of a run that did not end cleanly to the next start
	GapDisabled   = "disabled"    // the program ran without this monitor (switched off, or it failed)
	GapRetention  = "retention"   // removed by retention
	GapNotYet     = "not_yet"     // still to come when the question was asked
	GapDamaged    = "damaged"     // a block of the file is damaged and was skipped
)
