package query

import (
	"encoding/json"
	"time"
)

// SummaryResult answers a Summary.
type SummaryResult struct {
	Type  string    `json:"type"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Figures
	// Distinct counts the different values of the columns asked for.
	Distinct map[string]int64 `json:"distinct,omitempty"`
	// Top holds one list for each of the columns asked for. Events that have no
	// value there are in no list.
	Top map[string][]Group `json:"top,omitempty"`
	// Groups and GroupsTotal are there with GroupBy only. The total counts
	// the groups before all but the top ones are cut off.
	Groups      []Group  `json:"groups,omitzero"`
	GroupsTotal int      `json:"groups_total,omitzero"`
	Series      []Bucket `json:"series,omitzero"` // with Interval only
	Coverage    Coverage `json:"coverage"`
}

// Figures are the numbers of a set of events.
type Figures struct {
	// Count is the number of events, or of what they stand for: of packets, where
	// one event tells of several (packet_drop).
	Count int64 `json:"count"`
	// Counts are these by value of the type's Breakdown column: every
	// value of a closed set, or those that occur. Events without one are left out.
	Counts map[string]int64 `json:"counts"`
	// Sums adds up the known values of the columns that ask for it.
	Sums map[string]int64 `json:"sums"`
}

// Group is the figures of the events that share a key.
type Group struct {
	Key []KeyValue `json:"-"` // written by MarshalJSON
	Figures
}

// KeyValue is the value of one column that the events of a group share.
type KeyValue struct {
	Column string
	Value  any // string or int64; nil: the events have no value there
}

// MarshalJSON writes one flat object: the columns of the key under their own
// names, absent ones left out, then the figures.
func (g Group) MarshalJSON() ([]byte, error) {
	dst := []byte{'{'}
	for _, k := range g.Key {
		if k.Value == nil {
			continue
		}
		value, err := json.Marshal(k.Value)
		if err != nil {
			return nil, err
		}
		dst = append(append(append(dst, '"'), k.Column...), `":`...)
		dst = append(append(dst, value...), ',')
	}
	figures, err := json.Marshal(g.Figures)
	if err != nil {
		return nil, err
	}
	return append(dst, figures[1:]...), nil
}

// Bucket is the figures of one interval of a series.
type Bucket struct {
	Time time.Time `json:"time"` // its beginning; buckets are aligned to the Unix epoch
	Figures
}
