package bpf

import (
	"strings"
	"testing"
)

func TestCapabilities(t *testing.T) {
	bits, err := capabilities(strings.NewReader("Name:\tx\nCapEff:\t000001ffffffffff\n"))
	if err != nil || bits != 0x1ffffffffff {
		t.Errorf("%x, %v", bits, err)
	}
	if _, err := capabilities(strings.NewReader("Name:\tx\n")); err == nil {
		t.Error("no error without CapEff")
	}
}
