package block_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/event"
)

// exported is an event as another program declares it: its Parquet columns and
// its JSON fields have the same names.
type exported struct {
	Time            time.Time `parquet:"time,timestamp(nanosecond)" json:"time"`
	Type            string    `parquet:"type" json:"type"`
	PID             *int64    `parquet:"pid,optional" json:"pid,omitempty"`
	Command         *string   `parquet:"command,optional" json:"command,omitempty"`
	UID             *int64    `parquet:"uid,optional" json:"uid,omitempty"`
	CgroupID        *int64    `parquet:"cgroup_id,optional" json:"cgroup_id,omitempty"`
	ContainerID     *string   `parquet:"container_id,optional" json:"container_id,omitempty"`
	NetNS           *int64    `parquet:"netns,optional" json:"netns,omitempty"`
	User            *string   `parquet:"user,optional" json:"user,omitempty"`
	Executable      *string   `parquet:"executable,optional" json:"executable,omitempty"`
	ParentPID       *int64    `parquet:"parent_pid,optional" json:"parent_pid,omitempty"`
	ParentCommand   *string   `parquet:"parent_command,optional" json:"parent_command,omitempty"`
	Unit            *string   `parquet:"unit,optional" json:"unit,omitempty"`
	ContainerName   *string   `parquet:"container_name,optional" json:"container_name,omitempty"`
	ContainerImage  *string   `parquet:"container_image,optional" json:"container_image,omitempty"`
	K8sPod          *string   `parquet:"k8s_pod,optional" json:"k8s_pod,omitempty"`
	K8sNamespace    *string   `parquet:"k8s_namespace,optional" json:"k8s_namespace,omitempty"`
	K8sContainer    *string   `parquet:"k8s_container,optional" json:"k8s_container,omitempty"`
	ConnectionID    *string   `parquet:"connection_id,optional" json:"connection_id,omitempty"`
	State           *string   `parquet:"state,optional" json:"state,omitempty"`
	Direction       *string   `parquet:"direction,optional" json:"direction,omitempty"`
	Protocol        *string   `parquet:"protocol,optional" json:"protocol,omitempty"`
	SourceIP        *string   `parquet:"source_ip,optional" json:"source_ip,omitempty"`
	SourcePort      *int64    `parquet:"source_port,optional" json:"source_port,omitempty"`
	DestinationIP   *string   `parquet:"destination_ip,optional" json:"destination_ip,omitempty"`
	DestinationPort *int64    `parquet:"destination_port,optional" json:"destination_port,omitempty"`
	ReturnCode      *int64    `parquet:"return_code,optional" json:"return_code,omitempty"`
	Error           *string   `parquet:"error,optional" json:"error,omitempty"`
	Duration        *int64    `parquet:"duration_ns,optional" json:"duration_ns,omitempty"`
	BytesSent       *int64    `parquet:"bytes_sent,optional" json:"bytes_sent,omitempty"`
	BytesReceived   *int64    `parquet:"bytes_received,optional" json:"bytes_received,omitempty"`
	Retransmits     *int64    `parquet:"retransmits,optional" json:"retransmits,omitempty"`
	RTT             *int64    `parquet:"rtt_us,optional" json:"rtt_us,omitempty"`
	Attribution     *string   `parquet:"attribution,optional" json:"attribution,omitempty"`
}

// An independent reader of Parquet sees what the API shows.
func TestOtherReaders(t *testing.T) {
	one := event.NewBatch(connectionType, 1)
	one.Append(1)
	for name, b := range map[string]*event.Batch{
		"host": newHost(4).batch(20_000), "one row, nothing but time": one, "text that is not UTF-8": notUTF8(),
	} {
		t.Run(name, func(t *testing.T) {
			reader := parquet.NewGenericReader[exported](bytes.NewReader(encode(t, b)))
			defer reader.Close()
			rows := make([]exported, b.Len()+1)
			n, err := reader.Read(rows)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			got := make([]string, n)
			for i, row := range rows[:n] {
				row.Time = row.Time.UTC()
				text, err := json.Marshal(row)
				if err != nil {
					t.Fatal(err)
				}
				got[i] = string(text)
			}
			sameTexts(t, "parquet-go", got, texts(b))
		})
	}
}

func notUTF8() *event.Batch {
	b := event.NewBatch(connectionType, 1)
	b.Append(1)
	b.SetString(event.Command, "a\x80\xffb")
	return b
}

// The columns that have values, and no others.
func TestSchema(t *testing.T) {
	b := newHost(4).batch(1000)
	data := encode(t, b)
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"message connection {",
		"required int64 time (TIMESTAMP(isAdjustedToUTC=true,unit=NANOS));",
		"required binary type (STRING);",
	}
	absent := absences(b)
	for i, c := range connectionType.Columns {
		switch {
		case i == event.Time || absent[i] == b.Len():
		case c.Kind == event.KindInt:
			want = append(want, "optional int64 "+c.Name+" (INT(64,true));")
		default:
			want = append(want, "optional binary "+c.Name+" (STRING);")
		}
	}
	if len(want) == 3 || len(want) == 2+len(connectionType.Columns) {
		t.Fatal("the events should have values in some columns, and none in others")
	}
	want = append(want, "}")
	lines := strings.Split(f.Schema().String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	sameTexts(t, "schema", lines, want)

	if n := len(f.RowGroups()); n != 1 {
		t.Errorf("%d row groups", n)
	}
	if sorted := f.RowGroups()[0].SortingColumns(); len(sorted) != 1 || sorted[0].Path()[0] != "time" || sorted[0].Descending() {
		t.Errorf("sorted by %v", sorted)
	}
	for key, want := range map[string]string{"ebpf-server.type": "connection", "ebpf-server.version": "1"} {
		if value, _ := f.Lookup(key); value != want {
			t.Errorf("%s is %q, want %q", key, value, want)
		}
	}
	// Other readers take the number of absent values as a fact.
	for _, chunk := range f.Metadata().RowGroups[0].Columns {
		name := chunk.MetaData.PathInSchema[0]
		i := slices.IndexFunc(connectionType.Columns, func(c event.Column) bool { return c.Name == name })
		if name != "type" && chunk.MetaData.Statistics.NullCount != int64(absent[i]) {
			t.Errorf("%s has %d absent values, want %d", name, chunk.MetaData.Statistics.NullCount, absent[i])
		}
	}
}

// absences returns for each column how many events have no value.
func absences(b *event.Batch) []int {
	absent := make([]int, len(b.Columns))
	for i := range absent {
		for row := range b.Len() {
			if _, ok := (event.Row{Batch: b, Index: row}).AppendText(nil, i); !ok {
				absent[i]++
			}
		}
	}
	return absent
}
