package discovery

import (
	"strings"
	"testing"
)

func TestRecordCheck(t *testing.T) {
	long := strings.Repeat("n", MaxText)
	for _, r := range []Record{
		{ID: "n"}, {ID: long, Addr: long[:MaxText-5] + ":7400", PeerAddr: "[::1]:1"}, {ID: "Knoten ü/%", Addr: "node-1.example:65535"},
	} {
		if err := r.Check(); err != nil {
			t.Errorf("%.60v: %v", r, err)
		}
	}
	for want, r := range map[string]Record{
		"its ID is empty":                       {Addr: "a:1"},
		"its ID has 256 byte":                   {ID: long + "n"},
		`its ID is "a\xff", which is not UTF-8`: {ID: "a\xff"},
		`its ID is "a\x00b", which contains the control character U+0000`:            {ID: "a\x00b"},
		`its address for clients, "a", is not HOST:PORT`:                             {ID: "n", Addr: "a"},
		`its address for clients, ":1", names no host`:                               {ID: "n", Addr: ":1"},
		`its address for clients, "0.0.0.0:1", names no host`:                        {ID: "n", Addr: "0.0.0.0:1"},
		`its address for nodes, "a:0", has no port from 1 to 65535`:                  {ID: "n", PeerAddr: "a:0"},
		`its address for nodes, "a\n:1", contains a character that no address has`:   {ID: "n", PeerAddr: "a\n:1"},
		`its address for nodes, "a\xff:1", contains a character that no address has`: {ID: "n", PeerAddr: "a\xff:1"},
		`…, has 257 bytes, at most 255 are allowed`:                                  {ID: "n", PeerAddr: long + ":1"},
		`its address for clients, "two words:1", contains a character that no`:       {ID: "n", Addr: "two words:1"},
	} {
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60v: %v, want %s", r, err, want)
		}
	}
}
