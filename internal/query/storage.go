package query

import (
	"errors"
	"time"
)

// Storage tells what takes how much room in the file, and how long events are kept.
type Storage struct {
	Path      string        `json:"path"`
	Format    int           `json:"format"`
	FileBytes int64         `json:"file_bytes"`
	UsedBytes int64         `json:"used_bytes"`              // pages in use
	FreeBytes int64         `json:"free_bytes"`              // pages that are used again before the file grows
	MaxBytes  int64         `json:"max_size,omitempty"`      // configured for all types together; 0: no limit
	Types     []StorageType `json:"types"`                   // by name
	Damaged   int64         `json:"damaged_blocks,omitzero"` // found since the file was opened
}

// StorageType is what one type takes.
type StorageType struct {
	Name      string        `json:"name"`
	Events    int64         `json:"events"` // in the file
	Bytes     StorageBytes  `json:"bytes"`
	Oldest    time.Time     `json:"oldest,omitzero"`
	Newest    time.Time     `json:"newest,omitzero"`
	Retention Retention     `json:"retention"`
	Hours     []StorageHour `json:"hours,omitempty"` // oldest first; only in detail
}

// StorageBytes are bytes of values; the pages they lie in take a little more.
type StorageBytes struct {
	Rows    int64 `json:"rows"`
	Blocks  int64 `json:"blocks"`
	Indexes int64 `json:"indexes"`
	Rollups int64 `json:"rollups"`
	Carried int64 `json:"carried"` // beginnings of what is open still, whose hours were removed
}

// Total returns the sum.
func (b StorageBytes) Total() int64 { return b.Rows + b.Blocks + b.Indexes + b.Rollups + b.Carried }

// Retention is how long events of a type are kept: by its limits, in fact, and
// as the limit of size lets expect.
type Retention struct {
	MaxAge    float64 `json:"max_age_s,omitempty"`   // 0: no limit
	MaxBytes  int64   `json:"max_size,omitempty"`    // 0: no limit
	Actual    float64 `json:"actual_s"`              // from the oldest event that is kept to now
	Projected float64 `json:"projected_s,omitempty"` // how long MaxBytes last at the present rate; absent if not known
}

// StorageHour is what the file holds of an hour, or of a day whose hours were joined.
type StorageHour struct {
	Start  time.Time `json:"start"`
	Hours  int       `json:"hours"` // 1 or 24
	Events int64     `json:"events"`
	Bytes  int64     `json:"bytes"`
	Blocks int64     `json:"blocks"`
	Sealed bool      `json:"sealed"` // no events of it are in rows
}

// ErrNoPin says that there is no pin of the id that was named.
var ErrNoPin = errors.New("there is no such pin")

// Pin keeps events in a window from being removed by retention.
type Pin struct {
	ID      string    `json:"id"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Note    string    `json:"note"`
	Created time.Time `json:"created"`
}
