//go:build !cgo

package main

// peers leaves out those that need cgo. It is there so that make lint can
// check the rest without a C++ compiler.
var peers = []peerKind{
	{"store", openStore},
	{"bbolt", openKeyPerEvent},
}
