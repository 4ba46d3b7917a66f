// Package event describes what a monitor records: the declaration of a type
// with its columns, and batches of events held column by column.
//
// Everything that depends on the columns of a type (storage, filters,
// summaries, API documentation, metrics) is made from the declaration here,
// so a column is written down in one place only.
package event

import (
	"fmt"
	"math"
	"regexp"
)

// Kind says how the values of a column are held and printed.
type Kind uint8

const (
	// KindTime is nanoseconds since the Unix epoch; printed as RFC 3339 in UTC.
	KindTime Kind = iota + 1
	// KindInt is a signed 64-bit number; printed as a JSON number.
	KindInt
	// KindString is text; printed as a JSON string.
	KindString
	// KindIP is an address of 4 or 16 bytes in network order (v4-mapped ones
	// are held as 4 bytes); printed in its usual text form.
	KindIP
	// KindID is a scope and a 64-bit number that together are unique (the
	// boot and the socket's cookie); printed as "scope-hex".
	KindID
)

func (k Kind) String() string {
	switch k {
	case KindTime:
		return "time"
	case KindInt:
		return "int"
	case KindString:
		return "string"
	case KindIP:
		return "ip"
	case KindID:
		return "id"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Column declares one field of an event. Except for time, every column may be
// absent in an event: a value that is not known is left out.
type Column struct {
	Name        string   // snake_case, the same in the API, files and metrics
	Kind        Kind     //
	Unit        string   // "bytes", "ns", "us"; empty where there is none
	Description string   // one sentence, for people
	Values      []string // all possible values, where the set is closed
	Most        int64    // KindInt: values are 0 to this; 0: they may be any
	Form        string   // KindString: a regular expression that matches every value; empty: they may be any
	Sum         bool     // KindInt only: added up in summaries
	Distinct    bool     // summaries count its different values by default; rollups tell them apart
	Example     string   // a value as it is printed, for the API's documentation
}

// Type declares one kind of event: what one monitor records.
// It is made once by NewType and not changed afterwards.
type Type struct {
	Name       string   // "connection"; the value of the field "type"
	Collection string   // "connections"; the name in API paths
	Summary    string   // one sentence, for people
	Breakdown  string   // the column whose values every summary counts ("state")
	Top        []string // columns whose most frequent values a summary without group_by lists
	Weight     string   // the column that says how many an event stands for, which summaries count; empty, or absent in an event: one
	Failures   []string // values of Breakdown that tell of trouble
	Details    []string // columns that tables show in one, behind who and where
	Columns    []Column // common columns first (see Common), then the type's own
	Derived    []Derived
	Life       *Life // nil: its events stand alone
	Ends       *Ends // nil: they are not between two

	index map[string]int
	shown []Column // see Shown
}

// Positions of the common columns in every Type.Columns.
const (
	Time = iota
	PID
	Command
	UID
	CgroupID
	ContainerID
	NetNS
	User
	Executable
	ParentPID
	ParentCommand
	Unit
	ContainerName
	ContainerImage
	K8sPod
	K8sNamespace
	K8sContainer
	commonColumns // the first column of the type's own
)

// maxPID is more than any process id (PID_MAX_LIMIT of include/linux/threads.h).
const maxPID = 4 << 20

// MaxPort is the highest port.
const MaxPort = math.MaxUint16

// Common returns the columns that every event has, in their fixed order.
func Common() []Column {
	return []Column{
		Time:           {Name: "time", Kind: KindTime, Description: "When it happened, UTC.", Example: "2026-11-21T03:12:07.123456789Z"},
		PID:            {Name: "pid", Kind: KindInt, Most: maxPID, Description: "Process that owns the socket, as seen from the host.", Example: "4242"},
		Command:        {Name: "command", Kind: KindString, Description: "The kernel's name of that process (comm, at most 15 bytes).", Distinct: true, Example: "curl"},
		UID:            {Name: "uid", Kind: KindInt, Most: math.MaxUint32, Description: "User id of that process, as seen from the host.", Example: "1000"},
		CgroupID:       {Name: "cgroup_id", Kind: KindInt, Most: math.MaxInt64, Description: "Id of its cgroup (v2): the inode number of the cgroup's folder.", Example: "5127"},
		ContainerID:    {Name: "container_id", Kind: KindString, Description: "Container id read from the path of that cgroup.", Distinct: true, Example: "3f4e7c0a9b12"},
		NetNS:          {Name: "netns", Kind: KindInt, Most: math.MaxUint32, Description: "Network namespace: its inode number, as in /proc/PID/ns/net.", Example: "4026531840"},
		User:           {Name: "user", Kind: KindString, Description: "Name of uid in the host's /etc/passwd, in a container too.", Example: "www-data"},
		Executable:     {Name: "executable", Kind: KindString, Description: "The file that the process executed, as it sees it (in its mount namespace); of a script, the interpreter.", Example: "/usr/bin/curl"},
		ParentPID:      {Name: "parent_pid", Kind: KindInt, Most: maxPID, Description: "Its parent when it first used the network with that executable, as seen from the host.", Example: "4200"},
		ParentCommand:  {Name: "parent_command", Kind: KindString, Description: "The kernel's name of that parent.", Example: "bash"},
		Unit:           {Name: "unit", Kind: KindString, Description: "Unit that systemd runs it in, read from the path of its cgroup.", Example: "nginx.service"},
		ContainerName:  {Name: "container_name", Kind: KindString, Description: "Name of its container.", Example: "web"},
		ContainerImage: {Name: "container_image", Kind: KindString, Description: "Image of its container, as it was asked for.", Example: "docker.io/library/nginx:1.27"},
		K8sPod:         {Name: "k8s_pod", Kind: KindString, Description: "Name of its Kubernetes pod.", Example: "web-6d4cf56db6-x2x7p"},
		K8sNamespace:   {Name: "k8s_namespace", Kind: KindString, Description: "Kubernetes namespace of that pod.", Example: "shop"},
		K8sContainer:   {Name: "k8s_container", Kind: KindString, Description: "Name of its container within that pod.", Example: "nginx"},
	}
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// NewType checks a declaration, puts the common columns before the type's own
// and returns it ready for use. Declarations are part of the program, so a
// wrong one is a programming error and is reported when the program starts.
func NewType(t Type) (*Type, error) {
	t.Columns = append(Common(), t.Columns...)
	t.index = make(map[string]int, len(t.Columns))
	if !nameForm.MatchString(t.Name) || !nameForm.MatchString(t.Collection) {
		return nil, fmt.Errorf("declare event type %q: name and collection %q must be snake_case", t.Name, t.Collection)
	}
	for i, c := range t.Columns {
		if err := t.checkColumn(i); err != nil {
			return nil, err
		}
		t.index[c.Name] = i
	}
	if err := t.checkNamed(); err != nil {
		return nil, err
	}
	if t.Weight != "" && !t.hasWeight() {
		return nil, fmt.Errorf("declare event type %s: %q is no weight: it must be an int column of the type's own that is not summed as well", t.Name, t.Weight)
	}
	if err := t.setDerived(); err != nil {
		return nil, err
	}
	return &t, t.checkLife()
}

// checkColumn looks at column i, when those before it are in the index.
func (t *Type) checkColumn(i int) error {
	c := t.Columns[i]
	if !nameForm.MatchString(c.Name) || c.Name == "type" {
		return fmt.Errorf("declare event type %s: column name %q is not usable", t.Name, c.Name)
	}
	if _, twice := t.index[c.Name]; twice {
		return fmt.Errorf("declare event type %s: column %s is declared twice", t.Name, c.Name)
	}
	if c.Kind < KindTime || c.Kind > KindID || (c.Kind == KindTime) != (i == Time) || (c.Sum && c.Kind != KindInt) || c.Description == "" ||
		(c.Most != 0 && c.Kind != KindInt) || (c.Form != "" && c.Kind != KindString) {
		return fmt.Errorf("declare event type %s: column %s needs a known kind and a description; only the first is a time, only int columns are summed and have a most, and only text has a form", t.Name, c.Name)
	}
	return nil
}

// checkNamed looks at the columns that the declaration names.
func (t *Type) checkNamed() error {
	for _, name := range append([]string{t.Breakdown}, t.Top...) {
		i, ok := t.index[name]
		if !ok || (name == t.Breakdown && t.Columns[i].Kind != KindString) {
			return fmt.Errorf("declare event type %s: %q cannot be counted by: no such column, or not text", t.Name, name)
		}
	}
	for _, name := range t.Details {
		if _, ok := t.index[name]; !ok {
			return fmt.Errorf("declare event type %s: there is no column %q to show", t.Name, name)
		}
	}
	return nil
}

func (t *Type) hasWeight() bool {
	i, ok := t.index[t.Weight]
	return ok && i >= commonColumns && t.Columns[i].Kind == KindInt && !t.Columns[i].Sum
}

// MustType is NewType for declarations in package variables.
func MustType(t Type) *Type {
	made, err := NewType(t)
	if err != nil {
		panic(err)
	}
	return made
}

// Column returns the position of a column in Columns.
func (t *Type) Column(name string) (int, bool) {
	i, ok := t.index[name]
	return i, ok
}

// Fields returns the positions in Shown of those fields that the type has, in the order of
// their names; "type" becomes TypeField.
func (t *Type) Fields(names []string) []int {
	positions := make([]int, 0, len(names))
	for _, name := range names {
		if i, ok := t.Field(name); ok {
			positions = append(positions, i)
		} else if name == "type" {
			positions = append(positions, TypeField)
		}
	}
	return positions
}

// MustColumn is Column for names that stand in the declaration beside it.
func (t *Type) MustColumn(name string) int {
	i, ok := t.index[name]
	if !ok {
		panic("event type " + t.Name + " has no column " + name)
	}
	return i
}
