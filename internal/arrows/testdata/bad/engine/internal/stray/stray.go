// Package stray is an inner room that no row names.
package stray
