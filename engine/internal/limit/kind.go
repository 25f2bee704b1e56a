package limit

// Kind is a limit that a client can reach. Its word is in what the client hears, and in metrics.
type Kind uint8

// The limits. Connection means the limit of one connection. Identity means the limit that all
// connections of an identity share at this node. Address means the limit of all connections from
// one address.
const (
	ConnectionMessages Kind = iota
	ConnectionBytes
	ConnectionLookups
	IdentityMessages
	IdentityBytes
	IdentityLookups
	IdentityConnections
	IdentitySessions
	IdentityIDs
	IdentityWatched
	IdentityInFlight
	IdentityPendingBytes
	AddressConnections
	AddressHandshakes
	MemoryBudget // the node closed a connection that held most of its memory budget
	Kinds        // how many there are
)

var words = [Kinds]string{
	ConnectionMessages: "connection-messages",
	ConnectionBytes:    "connection-bytes",
	ConnectionLookups:  "connection-lookups",
	IdentityMessages:   "identity-messages",
	IdentityBytes:      "identity-bytes",
	IdentityLookups:    "identity-lookups",

	IdentityConnections:  "identity-connections",
	IdentitySessions:     "identity-sessions",
	IdentityIDs:          "identity-ids",
	IdentityWatched:      "identity-watched",
	IdentityInFlight:     "identity-in-flight",
	IdentityPendingBytes: "identity-pending-bytes",
	AddressConnections:   "address-connections",
	MemoryBudget:         "memory-budget",
	AddressHandshakes:    "address-handshakes",
}

// String returns the word of the limit.
func (k Kind) String() string { return words[k] }
