package block

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"github.com/srodi/ebpf-server/internal/event"
)

// validText returns a text as Parquet takes it and the API shows it: bytes that
// are not UTF-8, which a command may have, are replaced.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// appendIP appends an address, of 4 or 16 bytes, as PLAIN, in the form in
// which it is printed.
func appendIP(dst []byte, raw string) ([]byte, error) {
	begin := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	switch len(raw) {
	case 4: // a block has thousands of them
		for i := range len(raw) {
			dst = append(strconv.AppendUint(dst, uint64(raw[i]), 10), '.')
		}
		dst = dst[:len(dst)-1]
	case 16:
		dst = netip.AddrFrom16([16]byte([]byte(raw))).AppendTo(dst)
	default:
		return dst[:begin], fmt.Errorf("address of %d bytes", len(raw))
	}
	binary.LittleEndian.PutUint32(dst[begin:], uint32(len(dst)-begin-4))
	return dst, nil
}

// parseIP is event.ParseIP with a quick way for IPv4: a block has thousands of
// addresses.
func parseIP(text []byte) (string, error) {
	if ip, ok := parseIPv4(text); ok {
		return string(ip[:]), nil
	}
	return event.ParseIP(string(text))
}

func parseIPv4(text []byte) (ip [4]byte, ok bool) {
	part, digits, n := 0, 0, 0
	for _, c := range text {
		switch {
		case c == '.' && digits > 0 && part < 3:
			ip[part] = byte(n)
			part, digits, n = part+1, 0, 0
		case c >= '0' && c <= '9' && (n > 0 || digits == 0):
			n = 10*n + int(c-'0')
			digits++
			if n > 255 {
				return ip, false
			}
		default:
			return ip, false
		}
	}
	ip[part] = byte(n)
	return ip, part == 3 && digits > 0
}

// parseHex reads a number of at most 16 digits.
func parseHex(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 16 {
		return 0, false
	}
	var n uint64
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		n = n<<4 | uint64(c)
	}
	return int64(n), true
}

// appendText appends a text as PLAIN.
func appendText(dst []byte, s string) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s)))
	return append(dst, s...)
}

// appendID appends an id as PLAIN, in the form in which it is printed. Prefix is
// its scope and a dash.
func appendID(dst []byte, prefix string, n int64) []byte {
	begin := len(dst)
	dst = append(append(dst, 0, 0, 0, 0), prefix...)
	dst = strconv.AppendUint(dst, uint64(n), 16)
	binary.LittleEndian.PutUint32(dst[begin:], uint32(len(dst)-begin-4))
	return dst
}
