package query

import "time"

// Status is the state of a store: what it holds and how writing goes. It is
// declared here so that those who only show it need not import the store.
type Status struct {
	Path       string       `json:"path"`
	Bytes      int64        `json:"bytes"`      // size of the file
	FreeBytes  int64        `json:"free_bytes"` // of these, pages that are used again before the file grows
	ReadOnly   bool         `json:"read_only"`
	Pending    int64        `json:"pending"`             // events in memory, not yet in the file
	LastFlush  time.Time    `json:"last_flush,omitzero"` // the last write that succeeded
	LastError  string       `json:"last_error,omitempty"`
	ErrorSince time.Time    `json:"error_since,omitzero"` // the first of the failed writes since LastFlush
	Types      []TypeStatus `json:"types"`                // by name
}

// TypeStatus is what a store holds of one type.
type TypeStatus struct {
	Name      string           `json:"name"`
	Recorded  bool             `json:"recorded"` // being recorded now
	Events    int64            `json:"events"`   // in file and memory
	Bytes     int64            `json:"bytes"`    // that its events take in the file
	Oldest    time.Time        `json:"oldest,omitzero"`
	Newest    time.Time        `json:"newest,omitzero"`
	Appended  int64            `json:"appended"`            // events since the store was opened
	Lost      map[string]int64 `json:"lost"`                // events lost since the store was opened, by place
	LostTotal map[string]int64 `json:"lost_total"`          // events lost since the file was created, by place
	MaxAge    time.Duration    `json:"max_age_ns,omitzero"` // configured; zero: kept for ever
}
