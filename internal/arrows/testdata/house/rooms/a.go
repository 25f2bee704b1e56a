// Package rooms has a type with more methods than a small house allows.
package rooms

type many[T any] struct{}

func (many[T]) one()  {}
func (*many[T]) two() {}
