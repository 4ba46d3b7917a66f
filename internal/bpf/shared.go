package bpf

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
)

// sharedMaps are maps that objects of several monitors have in common
// (Monitor.Shares). They stay as long as the host. The zero value is ready.
type sharedMaps struct {
	mu     sync.Mutex
	byName map[string]*ebpf.Map
}

// add adds those of an object to the replacements of its own maps. The first
// object that has one decides on its size.
func (s *sharedMaps) add(object *ebpf.CollectionSpec, names []string, replacements map[string]*ebpf.Map) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName == nil {
		s.byName = map[string]*ebpf.Map{}
	}
	for _, name := range names {
		if s.byName[name] == nil {
			shared, err := ebpf.NewMap(object.Maps[name])
			if err != nil {
				return fmt.Errorf("make map %s: %w", name, err)
			}
			s.byName[name] = shared
		}
		replacements[name] = s.byName[name]
	}
	return nil
}
