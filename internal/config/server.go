package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// A token shorter than this can be guessed.
const minTokenLength = 16

var hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// parseAddress checks the form host:port. Port 0 lets the kernel choose.
func parseAddress(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("%q is not an address (want host:port such as 127.0.0.1:8080 or [::1]:8080)", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q has no usable port (want a number from 0 to 65535 after the colon)", text)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostForm.MatchString(host) {
		return "", fmt.Errorf("%q has no usable host (want an IP address or a name before the colon)", text)
	}
	return text, nil
}

// checkLoopback refuses an address that other machines can reach. Names other
// than localhost are refused too, as what they stand for can change.
func checkLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || (err == nil && ip.Unmap().IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q can be reached from other machines, which needs a token: set server.auth_token_file, or listen on 127.0.0.1", address)
}

// readToken reads the token that clients must send.
func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read token from %q: %w", path, reason(err))
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%q is not a file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%q can be read by others than its owner (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	data, err := readLimited(path)
	if err != nil {
		return "", fmt.Errorf("read token from %q: %w", path, reason(err))
	}
	token := strings.TrimSpace(string(data))
	if err := checkToken(token); err != nil {
		return "", fmt.Errorf("token in %q %w", path, err)
	}
	return token, nil
}

// checkToken wants what can be sent in an HTTP header and not be guessed. The
// token itself is not in the errors.
func checkToken(token string) error {
	if len(token) < minTokenLength {
		return fmt.Errorf("has %d characters, at least %d are needed (make one with: openssl rand -hex 32)", len(token), minTokenLength)
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return errors.New("must be one word of ASCII letters, digits and signs (make one with: openssl rand -hex 32)")
		}
	}
	return nil
}
