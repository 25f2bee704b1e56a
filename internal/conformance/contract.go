package conformance

import (
	"fmt"
	"strings"
)

// The contract between a client under test and the node. The client binds three IDs. It answers
// every message with its own payload as the reply, or rejects it if the payload says so. A message
// to Driver is an instruction. A report is a message from Driver to Report.
const (
	Driver   = "driver"      // instructions come to it, reports come from it
	Alice    = "alice"       // sends and posts of instructions come from it
	Bob      = "bob"         // receives
	Operator = "conformance" // the sender of instructions and messages
	Report   = "report"      // the receiver of reports

	// RejectPrefix begins the payload of a message that the client must reject. The rest is the
	// reason.
	RejectPrefix = "reject "

	// NodeVariable and ScenarioVariable are the environment variables of a client that Exec runs.
	NodeVariable     = "CONFORMANCE_NODE"     // the address to connect to, host:port
	ScenarioVariable = "CONFORMANCE_SCENARIO" // the name of the scenario
)

// The instructions. Words are separated by one space.
const (
	doSend      = "send"      // send TO N SIZE
	doPost      = "post"      // post TO N SIZE
	doMulticast = "multicast" // multicast TO TO …
	doBind      = "bind"      // bind ID
	doBindNew   = "bind_new"  // bind_new ID
	doUnbind    = "unbind"    // unbind ID
	doWatch     = "watch"     // watch ID
	doBye       = "bye"       // bye
)

// The reports.
const (
	saysOutcome  = "outcome"  // outcome TO K WORD DELIVERED
	saysBound    = "bound"    // bound ID WORD
	saysUnbound  = "unbound"  // unbound ID WORD
	saysKicked   = "kicked"   // kicked ID
	saysPresence = "presence" // presence ID online|offline
	saysCannot   = "cannot"   // cannot INSTRUCTION
)

// Numbered returns the payload of message k of an instruction: the number, filled up with dots to
// size bytes.
func Numbered(k, size int) []byte {
	text := fmt.Sprint(k)
	return []byte(text + strings.Repeat(".", max(0, size-len(text))))
}
