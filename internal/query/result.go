package query

import "time"

// SummaryResult answers a Summary.
type SummaryResult struct {
	Type  string    `json:"type"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Figures
	// Top holds one list for each of the columns asked for. Events that have no
	// value there are in no list.
	Top map[string][]Group `json:"top,omitempty"`
	// Groups and GroupsTotal are there with group_by and first_seen only. The total
	// counts the groups before all but the top ones are cut off.
	Groups      []Group `json:"groups,omitzero"`
	GroupsTotal int     `json:"groups_total,omitzero"`
	// Changes counts the groups by what became of them; with compare only.
	Changes map[string]int `json:"changes,omitempty"`
	Series  []Bucket       `json:"series,omitzero"` // with interval only
	// StatsError is by how much percentiles can be off, as a part of them (0.01:
	// one per cent). Numbers below 128 are exact.
	StatsError float64  `json:"stats_error,omitempty"`
	Coverage   Coverage `json:"coverage"`
	// Before is the earlier window; with compare only.
	Before *Earlier `json:"before,omitempty"`
	// History is what is known of the time before the window; with first_seen only.
	History *Coverage `json:"history,omitempty"`
}

// Earlier is the figures of the window that an answer is compared with.
type Earlier struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Figures
	Coverage Coverage `json:"coverage"`
}

// Figures are the numbers of a set of events.
type Figures struct {
	// Count is the number of events, or of what they stand for: of packets, where
	// one event tells of several (packet_drop).
	Count int64 `json:"count"`
	// Counts are these by value of the type's Breakdown column: every
	// value of a closed set, or those that occur. Events without one are left out.
	Counts Numbers `json:"counts" swaggertype:"object,integer"`
	// Sums adds up the known values of the columns that the parameter sums names, or
	// else of all that declare it.
	Sums Numbers `json:"sums" swaggertype:"object,integer"`
	// Stats tells how the numbers of the columns asked for are spread. Columns in
	// which no event has a value are left out.
	Stats map[string]Stats `json:"stats,omitempty"`
	// Distinct counts the different values of the columns asked for.
	Distinct map[string]int64 `json:"distinct,omitempty"`
}

// Stats tell how the numbers of a column are spread. A percentile is the
// smallest number that so many per cent of all do not exceed, but for StatsError.
type Stats struct {
	Count int64   `json:"count"` // numbers there are
	Min   int64   `json:"min"`
	Max   int64   `json:"max"`
	Avg   float64 `json:"avg"`
	P50   int64   `json:"p50"`
	P95   int64   `json:"p95"`
	P99   int64   `json:"p99"`
}

// Group is the figures of the events that share a key.
type Group struct {
	Key []KeyValue `json:"-"` // written by SummaryResult.MarshalJSON
	// FirstSeen is the time of the group's first event, and TopCommand the command
	// that has most of its events; with first_seen only.
	FirstSeen  time.Time `json:"first_seen,omitzero"`
	TopCommand string    `json:"top_command,omitempty"`
	Figures
	// Change is "new" (there was none before), "gone", "changed" or "same" (count, counts and
	// the sums that are told are), and Before the figures of the earlier window; with compare only.
	Change string   `json:"change,omitempty"`
	Before *Figures `json:"before,omitempty"`
}

// What became of a group since the earlier window.
const (
	ChangeNew     = "new"
	ChangeGone    = "gone"
	ChangeChanged = "changed"
	ChangeSame    = "same"
)

// KeyValue is the value of one column that the events of a group share.
type KeyValue struct {
	Column string
	Value  any // string or int64; nil: the events have no value there
}

// Bucket is the figures of one interval of a series.
type Bucket struct {
	Time time.Time `json:"time"` // its beginning; buckets are aligned to the Unix epoch
	Figures
	Before *Figures `json:"before,omitempty"` // of the same part of the earlier window; with compare only
}
