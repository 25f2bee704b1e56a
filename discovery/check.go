package discovery

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// MaxText is the maximum length in bytes of a node's name and of an address. The frames that carry
// them have no room for more.
const MaxText = 255

// Check returns what is wrong with a record, or nil. Every reader of a list of nodes depends on
// every record in it, so a source of records must leave out wrong ones.
func (r Record) Check() error {
	if err := CheckName(r.ID); err != nil {
		return fmt.Errorf("its ID %w", err)
	}
	for _, a := range []struct{ what, addr string }{{"address for clients", r.Addr}, {"address for nodes", r.PeerAddr}} {
		if a.addr == "" { // the node accepts no clients, or is not in a cluster
			continue
		}
		if err := CheckAddr(a.addr); err != nil {
			return fmt.Errorf("its %s, %s, %w", a.what, brief(a.addr), err)
		}
	}
	return nil
}

// CheckName returns why a text cannot be the name of a node or of a cluster, or nil if it can. The
// error begins with a verb, so that the caller can put the subject before it.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > MaxText:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(name), MaxText)
	case !utf8.ValidString(name):
		return fmt.Errorf("is %s, which is not UTF-8", brief(name))
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("is %s, which contains the control character %U", brief(name), r)
		}
	}
	return nil
}

// CheckAddr returns why others cannot connect to an address, or nil if they can. The error begins
// with a verb, like that of CheckName.
func CheckAddr(addr string) error {
	if len(addr) > MaxText {
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(addr), MaxText)
	}
	for _, r := range addr { // invalid UTF-8 yields RuneError
		if r == utf8.RuneError || !unicode.IsPrint(r) || r == ' ' {
			return errors.New("contains a character that no address has")
		}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New("is not HOST:PORT")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("has no port from 1 to 65535")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return errors.New("names no host")
	}
	return nil
}

// brief quotes the beginning of a text.
func brief(s string) string {
	const enough = 40
	if len(s) > enough {
		return fmt.Sprintf("%q…", s[:enough])
	}
	return strconv.Quote(s)
}
