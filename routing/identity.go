package routing

// Identified is a Registry that can identify its data. Nodes that link compare the identities
// (S28), because nodes with different registries would answer no_route for IDs that the other has
// bound. A wrapper of a Registry should implement it, too.
type Identified interface {
	// Identity says which data the registry works on. It does no I/O, and any goroutine may call
	// it.
	Identity() Identity
}

// Identity identifies the data of a registry.
type Identity struct {
	// ID is random and stored with the data. All users of the same data have the same ID, and other
	// data have another. Empty means not known yet.
	ID string
	// Buckets is the number of hashes that hold the bindings, on which all nodes must agree. 0
	// means that the registry has no such hashes.
	Buckets int
}
