package routing

// Identified is a Registry that can tell its data from that of others. Nodes that are linked
// compare what it says (S28): two whose registries are not one would answer no_route for IDs that
// the other has bound. A wrapper of a Registry should pass it on.
type Identified interface {
	// Identity says which data the registry works on. It asks nobody, and any goroutine may call
	// it.
	Identity() Identity
}

// Identity tells the data of a registry from that of others.
type Identity struct {
	// ID is random and kept with the data: the same for everyone who works on it, and another one
	// elsewhere. Empty: not known yet.
	ID string
	// Buckets is how many hashes the bindings are spread over, on which all have to agree; 0: it
	// has none.
	Buckets int
}
