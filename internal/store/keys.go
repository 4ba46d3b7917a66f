package store

import (
	"encoding/binary"
	"time"
)

// Numbers in keys and values are 8 bytes, big-endian, so that keys sort by
// them; times are nanoseconds since the Unix epoch.

func putInt(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// getInt returns 0 for what is no number.
func getInt(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func putTime(t time.Time) []byte { return putInt(t.UnixNano()) }

// hourOf returns the number of the hour since the Unix epoch that a time is in.
func hourOf(unixNano int64) int64 {
	h := unixNano / int64(time.Hour)
	if unixNano%int64(time.Hour) < 0 {
		h--
	}
	return h
}

func hourStart(hour int64) time.Time { return time.Unix(hour*3600, 0).UTC() }
