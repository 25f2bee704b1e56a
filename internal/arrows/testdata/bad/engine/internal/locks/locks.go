// Package locks is an inner room whose row has an arrow to its owner.
package locks
