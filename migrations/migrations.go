// Package migrations knows the format versions of the database file and the
// steps that bring an older file to the present one.
package migrations

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// Version is the format that this program writes. docs/format.md describes it.
// It grows by one with every change that an older program could not read.
const Version = 2

// Step brings a file from one format to the next. It keeps a frozen copy of
// whatever it needs to know about the old one, and can be run again on a file
// that already has the new one.
type Step func(tx *bbolt.Tx) error

// steps holds at i the step from format i+1 to i+2.
var steps = []Step{toBlocks}

// The place of the version is the one thing that all formats have in common.
var (
	metaBucket = []byte("meta")
	formatKey  = []byte("format")
)

// Read returns the format of a file, 0 if it has none.
func Read(tx *bbolt.Tx) uint32 {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return 0
	}
	if value := meta.Get(formatKey); len(value) == 4 {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

// Write sets the format of a file.
func Write(tx *bbolt.Tx, version uint32) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	return meta.Put(formatKey, binary.BigEndian.AppendUint32(nil, version))
}

// Check reports a format that this program cannot work with.
func Check(version uint32) error {
	switch {
	case version == 0:
		return fmt.Errorf("not written by ebpf-server")
	case version > Version:
		return fmt.Errorf("written by a newer ebpf-server (format %d, this program reads %d)", version, Version)
	}
	return nil
}

// Apply brings a file that passed Check to the present format, each step in a
// transaction of its own.
func Apply(db *bbolt.DB) error { return apply(db, steps) }

func apply(db *bbolt.DB, steps []Step) error {
	for done := false; !done; {
		err := db.Update(func(tx *bbolt.Tx) error {
			version := Read(tx)
			if done = version == 0 || int(version) > len(steps); done {
				return nil
			}
			if err := steps[version-1](tx); err != nil {
				return fmt.Errorf("migrate from format %d: %w", version, err)
			}
			return Write(tx, version+1)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
