package migrations

import "go.etcd.io/bbolt"

// toBlocks makes room for what came with format 2: blocks, with indexes and
// rollups, and pins. The rows of format 1 stay as they are: the store turns
// those of closed hours into blocks one hour after the other, later.
func toBlocks(tx *bbolt.Tx) error {
	for _, name := range []string{"segments", "blocks", "indexes", "rollups", "days", "pins"} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}
