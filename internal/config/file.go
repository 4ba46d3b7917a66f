package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/srodi/ebpf-server/internal/suggest"
)

// searchPath is where the configuration is looked for, in this order.
var searchPath = []string{"configs/ebpf-server.yaml", "/etc/ebpf-server/ebpf-server.yaml"}

// No configuration is longer; a bigger file is something else.
const maxFileSize = 1 << 20

// file is the configuration file: its values as they are written, by key.
type file struct {
	path     string
	values   map[string]any // strings, but viper wants any
	lines    map[string]int // where each key stands, sections included
	problems []error
	keys     map[string]bool // what may stand in it: true is a value, false a section
	lists    map[string]bool // values that are lists
}

// readFile finds, reads and parses the file. Finding none is fine, unless it
// was asked for by --config.
func readFile(flags *pflag.FlagSet, table []setting) (*file, error) {
	f := newFile(table)
	paths := searchPath
	asked := flags.Changed("config")
	if asked {
		paths = []string{flags.Lookup("config").Value.String()}
	}
	for _, path := range paths {
		data, err := readLimited(path)
		if errors.Is(err, fs.ErrNotExist) && !asked {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read configuration %q: %w", path, reason(err))
		}
		f.path = path
		return f, f.parse(data)
	}
	return f, nil
}

func newFile(table []setting) *file {
	f := &file{values: map[string]any{}, lines: map[string]int{}, keys: keysOf(table), lists: map[string]bool{}}
	for _, s := range table {
		f.lists[s.key] = s.isList
	}
	return f
}

// readLimited reads a whole file, unless it is too long to be meant.
func readLimited(path string) ([]byte, error) {
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	data, err := io.ReadAll(io.LimitReader(opened, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		err = errors.New("longer than 1 MiB, is this the right file?")
	}
	return data, err
}

// reason is the part of an error that does not repeat the path.
func reason(err error) error {
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// keysOf lists all keys and the sections they stand in.
func keysOf(table []setting) map[string]bool {
	keys := map[string]bool{"programs": false, "retention.types": false}
	for _, s := range table {
		keys[s.key] = true
		for i, r := range s.key {
			if r == '.' {
				keys[s.key[:i]] = false
			}
		}
	}
	return keys
}

// at is the beginning of a message about a line.
func (f *file) at(line int) string {
	return fmt.Sprintf("%s:%d: ", f.path, line)
}

func (f *file) problem(line int, format string, args ...any) {
	f.problems = append(f.problems, fmt.Errorf(f.at(line)+format, args...))
}

// parse fills in values and problems. The error is for a file that is not
// YAML at all.
func (f *file) parse(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil // empty, or only comments
	}
	if err != nil {
		return f.syntaxError(err, data)
	}
	if err := decoder.Decode(&second); err == nil {
		f.problem(second.Line, "a second document begins here, only one is read")
	} else if !errors.Is(err, io.EOF) {
		return f.syntaxError(err, data)
	}
	f.section(document.Content[0], "")
	return nil
}

var (
	yamlError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)
	tabIndent = regexp.MustCompile(`^ *\t`)
)

// syntaxError puts the parser's message into the form of all others. Tabs are
// by far the most frequent cause and the parser's words for them hard to read.
func (f *file) syntaxError(err error, data []byte) error {
	for i, line := range bytes.Split(data, []byte("\n")) {
		if tabIndent.Match(line) {
			return fmt.Errorf("%sindented with a tab, YAML wants spaces", f.at(i+1))
		}
	}
	parts := yamlError.FindStringSubmatch(err.Error())
	switch {
	case parts == nil:
		return fmt.Errorf("%s: not valid YAML: %w", f.path, err)
	case parts[1] == "":
		return fmt.Errorf("%s: not valid YAML: %s", f.path, parts[2])
	}
	return fmt.Errorf("%s:%s: not valid YAML: %s", f.path, parts[1], parts[2])
}

// section reads a mapping. The name is empty for the file as a whole.
func (f *file) section(node *yaml.Node, name string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // a section with all its keys commented out
	}
	if node.Kind != yaml.MappingNode {
		f.problem(node.Line, "%s", notASection(node, name, f.below(name)))
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		full := key.Value
		if name != "" {
			full = name + "." + key.Value
		}
		isValue, known := f.keys[full]
		first, twice := f.lines[full]
		switch {
		case key.Kind != yaml.ScalarNode || !known || strings.Contains(key.Value, "."):
			f.problem(key.Line, "%s: unknown key%s", full, suggest.Among(key.Value, f.below(name)))
			continue
		case twice:
			f.problem(key.Line, "%s: set twice, first on line %d", full, first)
			continue
		}
		f.lines[full] = key.Line
		if isValue {
			f.value(value, full)
		} else {
			f.section(value, full)
		}
	}
}

// value reads the value of one key.
func (f *file) value(node *yaml.Node, key string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if f.lists[key] && node.Kind == yaml.SequenceNode {
		var lines []string
		for _, entry := range node.Content {
			if entry.Kind != yaml.ScalarNode {
				f.problem(entry.Line, "%s: %s where one value is wanted", key, kindName(entry))
				return
			}
			lines = append(lines, entry.Value)
		}
		f.values[key] = strings.Join(lines, "\n")
		return
	}
	if node.Kind != yaml.ScalarNode {
		f.problem(node.Line, "%s: %s where one value is wanted", key, kindName(node))
		return
	}
	text := node.Value
	if node.Tag == "!!null" {
		text = ""
	}
	f.values[key] = text
}

// below lists the names that may stand in a section.
func (f *file) below(section string) []string {
	if section != "" {
		section += "."
	}
	var names []string
	for _, key := range slices.Sorted(maps.Keys(f.keys)) {
		if rest, ok := strings.CutPrefix(key, section); ok && !strings.Contains(rest, ".") {
			names = append(names, rest)
		}
	}
	return names
}

func notASection(node *yaml.Node, name string, keys []string) string {
	found := kindName(node)
	if node.Kind == yaml.ScalarNode {
		found = fmt.Sprintf("%q", node.Value)
	}
	if name == "" {
		name = "the file"
	}
	return fmt.Sprintf("%s: %s where a section is wanted (with the keys %s)", name, found, strings.Join(keys, ", "))
}

func kindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a section"
	}
	return "a value"
}
