//go:build cgo

package main

// peers opens each kind of peer in a folder of its own. The store stands first:
// the others are compared with it.
var peers = []peerKind{
	{"store", openStore},
	{"bbolt", openKeyPerEvent},
	{"sqlite", openSQLite},
	{"duckdb", openDuckDB},
}
