package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/names"
)

// How many are remembered. The kernel knows of 8,192 whom it has told of, so
// that what is forgotten here is told again.
const (
	maxProcesses = 16384
	maxCgroups   = 16384
)

// refreshEvery bounds how often the list of users is looked at.
const refreshEvery = time.Second

// ProcessID is what never belongs to two processes, nor to two programs that
// one process executes one after the other: see bpf/include/names.h.
type ProcessID struct {
	PID     uint32
	ExecID  uint32
	StartNs uint64 // CLOCK_BOOTTIME
}

// process is what is told of a process once.
type process struct {
	executable    string // "" where it is not known
	parentPID     uint32
	parentCommand string
}

// Names says what things are called. Executables, parents and the paths of
// cgroups are told by the kernel, in a ring buffer that all monitors share,
// before the first event that needs them; the rest is in files of the host.
// It is safe for concurrent use.
type Names struct {
	host *names.Host

	mu        sync.Mutex // guards what follows
	shared    map[string]*ebpf.Map
	reader    *ringbuf.Reader
	record    ringbuf.Record
	processes *simplelru.LRU[ProcessID, process]
	cgroups   *simplelru.LRU[uint64, names.Cgroup]
	refreshed time.Time
}

// NewNames returns the names of a host.
func NewNames(host *names.Host) *Names {
	n := &Names{host: host}
	// They fail for sizes below 1 only.
	n.processes, _ = simplelru.NewLRU[ProcessID, process](maxProcesses, nil)
	n.cgroups, _ = simplelru.NewLRU[uint64, names.Cgroup](maxCgroups, nil)
	return n
}

// mapsOf returns the maps of an object that all monitors share; a monitor whose
// events have no owner has none. They stay as long as Names.
func (n *Names) mapsOf(object *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shared == nil {
		if err := n.makeMaps(); err != nil {
			return nil, fmt.Errorf("make maps of names: %w", err)
		}
	}
	shared := maps.Clone(n.shared)
	maps.DeleteFunc(shared, func(name string, _ *ebpf.Map) bool { return object.Maps[name] == nil })
	return shared, nil
}

func (n *Names) makeMaps() error {
	spec, err := loadKernel()
	if err != nil {
		return err
	}
	shared := map[string]*ebpf.Map{}
	for _, name := range []string{kernelMapNames, kernelMapToldProcesses, kernelMapToldCgroups} {
		if shared[name], err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return err
		}
	}
	if n.reader, err = ringbuf.NewReader(shared[kernelMapNames]); err != nil {
		return err
	}
	n.reader.SetDeadline(time.Now()) // it never waits
	n.shared = shared
	return nil
}

// watch takes over names as soon as the kernel tells of a cgroup, until done is
// closed. A container that lives for a moment is named by files that are gone
// soon after, perhaps before its first event is read.
func (n *Names) watch(done <-chan struct{}) {
	told := []unix.PollFd{{Fd: int32(n.shared[kernelMapNames].FD()), Events: unix.POLLIN}}
	for {
		select {
		case <-done:
			return
		default:
		}
		const looksForDone = 1000 // ms
		if _, err := unix.Poll(told, looksForDone); err != nil && !errors.Is(err, unix.EINTR) {
			return // names are read with the events then
		}
		n.mu.Lock()
		n.read()
		n.mu.Unlock()
	}
}

// SetProcess gives the newest event its process, and the names of that.
func (n *Names) SetProcess(b *event.Batch, id ProcessID) {
	b.SetInt(event.PID, int64(id.PID))
	n.mu.Lock()
	p, known := n.processes.Get(id)
	if !known && n.read() {
		p, _ = n.processes.Get(id)
	}
	n.mu.Unlock()
	setKnown(b, event.Executable, p.executable)
	if p.parentPID != 0 {
		b.SetInt(event.ParentPID, int64(p.parentPID))
		b.SetString(event.ParentCommand, p.parentCommand)
	}
}

// SetCgroup gives the newest event its cgroup, and the names that follow.
func (n *Names) SetCgroup(b *event.Batch, id uint64) {
	b.SetInt(event.CgroupID, int64(id))
	n.mu.Lock()
	c, known := n.cgroups.Get(id)
	if !known && n.read() {
		c, _ = n.cgroups.Get(id)
	}
	n.mu.Unlock()
	setKnown(b, event.Unit, c.Unit)
	if c.ContainerID == "" {
		return
	}
	b.SetString(event.ContainerID, c.ContainerID)
	setKnown(b, event.ContainerName, c.Name)
	setKnown(b, event.ContainerImage, c.Image)
	setKnown(b, event.K8sPod, c.Pod.Name)
	setKnown(b, event.K8sNamespace, c.Pod.Namespace)
	setKnown(b, event.K8sContainer, c.Pod.Container)
}

// SetUser gives the newest event its user id, and its name.
func (n *Names) SetUser(b *event.Batch, uid uint32) {
	b.SetInt(event.UID, int64(uid))
	setKnown(b, event.User, n.host.Users.Name(uid))
}

func setKnown(b *event.Batch, column int, name string) {
	if name != "" {
		b.SetString(column, name)
	}
}

// read takes over what the kernel has told since, and reports whether there
// was something.
func (n *Names) read() bool {
	if n.reader == nil || n.reader.AvailableBytes() == 0 {
		return false
	}
	for n.reader.ReadInto(&n.record) == nil {
		if len(n.record.RawSample) < int(unsafe.Sizeof(kernelNamed{})) {
			continue
		}
		// The layout comes from the object's BTF; the reader's buffer is aligned.
		told := (*kernelNamed)(unsafe.Pointer(unsafe.SliceData(n.record.RawSample)))
		if told.CgroupId != 0 {
			n.cgroups.Add(told.CgroupId, n.host.Cgroup(pathOf(told)))
			continue
		}
		id := ProcessID{PID: told.Process.Pid, ExecID: told.Process.ExecId, StartNs: told.Process.StartNs}
		n.processes.Add(id, process{executable: pathOf(told), parentPID: told.ParentPid, parentCommand: string(Text(&told.ParentCommand))})
	}
	return true
}

// follow looks, from time to time, whether the users have changed.
func (n *Names) follow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); now.Sub(n.refreshed) >= refreshEvery {
		n.refreshed = now
		n.host.Users.Refresh()
	}
}

// Ends of a path, as in enum path_end.
const (
	pathUnknown = iota
	pathRoot
	pathNowhere
)

// pathOf puts together a path, of which the kernel tells the innermost name
// first. It is "" where the path is not known.
func pathOf(told *kernelNamed) string {
	if told.PathEnd == pathUnknown || int(told.PathLength) > len(told.Path) {
		return ""
	}
	var path strings.Builder
	names := bytes.Split(raw(told.Path[:told.PathLength]), []byte{0})
	for i := len(names) - 2; i >= 0; i-- { // nothing follows the last 0
		if told.PathEnd == pathRoot {
			path.WriteByte('/')
		}
		path.Write(names[i])
	}
	return path.String()
}

// Text returns a name as the kernel keeps it, up to the first 0 or the end, without
// a copy.
func Text(chars *[16]int8) []byte {
	text := raw(chars[:])
	if end := bytes.IndexByte(text, 0); end >= 0 {
		return text[:end]
	}
	return text
}

func raw(chars []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(chars))), len(chars))
}

// Alive tells whether the process is there still, and not another one that got
// its number.
func (id ProcessID) Alive() bool {
	stat, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(id.PID), 10) + "/stat")
	// The start is in hundredths of a second since boot.
	return err == nil && string(statField(stat, 22)) == strconv.FormatUint(id.StartNs/1e7, 10)
}

// statField returns a field of /proc/PID/stat by its number in proc(5), from the
// third on: the second one, (COMMAND), may hold anything.
func statField(stat []byte, number int) []byte {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if number-3 >= len(fields) {
		return nil
	}
	return fields[number-3]
}
