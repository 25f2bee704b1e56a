// Package ranking is a heap whose elements know their index. So an element in the middle can leave,
// or move after it has changed. It takes no lock. Its owner does.
package ranking

import "container/heap"

// Ranking is a heap. Its first element, at index 0, goes before all others. The zero value is
// empty. Only Add, TakeFirst, Remove and PutInOrder may change it. The other methods are for
// package heap.
type Ranking[T Ranked[T]] []T

// Ranked is an element of a Ranking.
type Ranked[T any] interface {
	GoesBefore(T) bool
	// StandsAt notes the element's index. An index of -1 means that the element has left the
	// ranking.
	StandsAt(i int)
}

// Len, Less, Swap, Push and Pop are for package heap.
func (r Ranking[T]) Len() int           { return len(r) }
func (r Ranking[T]) Less(i, j int) bool { return r[i].GoesBefore(r[j]) }

func (r Ranking[T]) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].StandsAt(i)
	r[j].StandsAt(j)
}

func (r *Ranking[T]) Push(x any) {
	x.(T).StandsAt(len(*r))
	*r = append(*r, x.(T))
}

func (r *Ranking[T]) Pop() any {
	last := len(*r) - 1
	x := (*r)[last]
	clear((*r)[last:])
	*r = (*r)[:last]
	x.StandsAt(-1)
	return x
}

// Add puts an element in its place.
func (r *Ranking[T]) Add(x T) { heap.Push(r, x) }

// TakeFirst removes the first element and returns it. There must be one.
func (r *Ranking[T]) TakeFirst() T { return heap.Pop(r).(T) }

// Remove removes the element at index i.
func (r *Ranking[T]) Remove(i int) { heap.Remove(r, i) }

// PutInOrder moves the element at index i to its place after the element has changed.
func (r *Ranking[T]) PutInOrder(i int) { heap.Fix(r, i) }
