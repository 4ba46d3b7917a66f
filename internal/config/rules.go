package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/srodi/ebpf-server/internal/suggest"
)

// Rule tells which events of a program it means: those that have one of the
// values of each condition that is there.
type Rule struct {
	Commands   []string // at most 15 bytes, as the kernel keeps them
	UIDs       []uint32
	Cgroups    []string       // paths from the root of the cgroup file system; what is below them counts
	Networks   []netip.Prefix // of either end
	Ports      [][2]uint16    // first and last of ranges, of either end
	Interfaces []string
}

// maxName is how many bytes the kernel keeps of a command, and of the name of an
// interface.
const maxName = 15

// loopback are the networks of the condition of that name.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// parseRules reads rules, one a line; an environment variable has semicolons
// instead. Conditions says which there are.
func parseRules(text string, conditions []string) (rules []Rule, err error) {
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ';' }) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		rule, err := parseRule(line, conditions)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", strings.TrimSpace(line), err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// parseRule reads "command=curl,wget port=443 loopback".
func parseRule(line string, conditions []string) (r Rule, err error) {
	seen := map[string]bool{}
	for _, field := range strings.Fields(line) {
		name, list, hasValue := strings.Cut(field, "=")
		switch {
		case !slices.Contains(conditions, name):
			return r, fmt.Errorf("%q is no condition%s", name, suggest.Among(name, conditions))
		case seen[name]:
			return r, fmt.Errorf("%s is there twice; give it several values with commas", name)
		case hasValue == (name == "loopback"):
			return r, fmt.Errorf("write loopback alone, and all else as NAME=VALUE, with commas between values")
		}
		seen[name] = true
		if name == "loopback" {
			r.Networks = append(r.Networks, loopback...)
			continue
		}
		for value := range strings.SplitSeq(list, ",") {
			if err := r.add(name, value); err != nil {
				return r, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if seen["ip"] && seen["loopback"] {
		return r, errors.New("ip and loopback are two conditions on the same; write two rules")
	}
	return r, nil
}

func (r *Rule) add(name, value string) (err error) {
	if value == "" {
		return errors.New("a value is empty")
	}
	switch name {
	case "command":
		r.Commands, err = append(r.Commands, value), checkName(value)
	case "interface":
		r.Interfaces, err = append(r.Interfaces, value), checkName(value)
	case "uid":
		n, failed := strconv.ParseUint(value, 10, 32)
		if failed != nil {
			return fmt.Errorf("%q is not the number of a user", value)
		}
		r.UIDs = append(r.UIDs, uint32(n))
	case "cgroup":
		if !strings.HasPrefix(value, "/") {
			return fmt.Errorf("%q does not begin with /", value)
		}
		r.Cgroups = append(r.Cgroups, value)
	case "ip":
		network, failed := parseNetwork(value)
		r.Networks, err = append(r.Networks, network), failed
	case "port":
		ports, failed := parsePorts(value)
		r.Ports, err = append(r.Ports, ports), failed
	}
	return err
}

func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%q is longer than the %d bytes that the kernel keeps; write %q", name, maxName, name[:maxName])
	}
	return nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Masked() != network {
		return network, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", text)
	}
	return network, nil
}

func parsePorts(text string) (ports [2]uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || last < first || first == 0 {
		return ports, fmt.Errorf("%q is neither a port (1 to 65535) nor a range such as 8000-8100", text)
	}
	return [2]uint16{uint16(first), uint16(last)}, nil
}
