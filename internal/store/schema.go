package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
)

// schema is the declaration of a type as the file keeps it, so that a copy is
// read by a program that declares the type otherwise or not at all. A schema
// is never changed: another declaration gets another number.
type schema struct {
	Name       string         `json:"name"`
	Collection string         `json:"collection"`
	Summary    string         `json:"summary"`
	Breakdown  string         `json:"breakdown"`
	Top        []string       `json:"top,omitempty"`
	Weight     string         `json:"weight,omitempty"`
	Columns    []schemaColumn `json:"columns"` // all of them, the common ones too
}

type schemaColumn struct {
	Name        string   `json:"name"`
	Kind        string   `json:"kind"`
	Unit        string   `json:"unit,omitempty"`
	Description string   `json:"description"`
	Values      []string `json:"values,omitempty"`
	Sum         bool     `json:"sum,omitempty"`
	Distinct    bool     `json:"distinct,omitempty"`
	Example     string   `json:"example,omitempty"`
}

func schemaOf(t *event.Type) *schema {
	s := &schema{Name: t.Name, Collection: t.Collection, Summary: t.Summary, Breakdown: t.Breakdown, Top: t.Top, Weight: t.Weight}
	for _, c := range t.Columns {
		s.Columns = append(s.Columns, schemaColumn{
			Name: c.Name, Kind: c.Kind.String(), Unit: c.Unit, Description: c.Description,
			Values: c.Values, Sum: c.Sum, Distinct: c.Distinct, Example: c.Example,
		})
	}
	return s
}

// kindOf is the inverse of event.Kind.String; 0 is a kind that this program
// does not know.
func kindOf(name string) event.Kind {
	for k := event.KindTime; k <= event.KindID; k++ {
		if k.String() == name {
			return k
		}
	}
	return 0
}

// declare makes a type of a schema, for one that the program does not declare.
func (s *schema) declare() (*event.Type, error) {
	t := event.Type{Name: s.Name, Collection: s.Collection, Summary: s.Summary, Breakdown: s.Breakdown, Top: s.Top, Weight: s.Weight}
	common := event.Common()
	for _, c := range s.Columns {
		isCommon := slices.ContainsFunc(common, func(k event.Column) bool { return k.Name == c.Name })
		if kind := kindOf(c.Kind); kind != 0 && !isCommon {
			t.Columns = append(t.Columns, event.Column{
				Name: c.Name, Kind: kind, Unit: c.Unit, Description: c.Description,
				Values: c.Values, Sum: c.Sum, Distinct: c.Distinct, Example: c.Example,
			})
		}
	}
	return event.NewType(t)
}

// schemas are all declarations of a file.
type schemas struct {
	byNumber map[uint32]*schema
	latest   map[string]uint32 // by name of the type
}

func readSchemas(tx *bbolt.Tx) (*schemas, error) {
	all := &schemas{byNumber: make(map[uint32]*schema), latest: make(map[string]uint32)}
	err := tx.Bucket(bucketMeta).Bucket(bucketSchemas).ForEach(func(k, v []byte) error {
		s := new(schema)
		if err := json.Unmarshal(v, s); err != nil || len(k) != 4 {
			return fmt.Errorf("read schema %x: not a schema: %w", k, err)
		}
		number := binary.BigEndian.Uint32(k)
		all.byNumber[number] = s
		all.latest[s.Name] = number
		return nil
	})
	return all, err
}

// add writes the declaration of a type unless it is the latest one already.
func (all *schemas) add(tx *bbolt.Tx, t *event.Type) error {
	s := schemaOf(t)
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write schema of %s: %w", t.Name, err)
	}
	bucket := tx.Bucket(bucketMeta).Bucket(bucketSchemas)
	if number, ok := all.latest[t.Name]; ok && bytes.Equal(text, bucket.Get(binary.BigEndian.AppendUint32(nil, number))) {
		return nil
	}
	sequence, err := bucket.NextSequence()
	if err != nil {
		return fmt.Errorf("write schema of %s: %w", t.Name, err)
	}
	number := uint32(sequence)
	if err := bucket.Put(binary.BigEndian.AppendUint32(nil, number), text); err != nil {
		return fmt.Errorf("write schema of %s: %w", t.Name, err)
	}
	all.byNumber[number], all.latest[t.Name] = s, number
	return nil
}
