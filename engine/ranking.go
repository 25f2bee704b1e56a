package engine

import "container/heap"

// ranking is a heap: the element that goes before all others is the first. Its elements know where they
// stand, so one in the middle can leave, or be put in its place again.
type ranking[T ranked[T]] []T

// ranked is an element of a ranking.
type ranked[T any] interface {
	goesBefore(T) bool
	// standsAt notes the element's index; -1: it is in the ranking no longer.
	standsAt(i int)
}

// The methods with capitals are for package heap.

func (r ranking[T]) Len() int           { return len(r) }
func (r ranking[T]) Less(i, j int) bool { return r[i].goesBefore(r[j]) }

func (r ranking[T]) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].standsAt(i)
	r[j].standsAt(j)
}

func (r *ranking[T]) Push(x any) {
	x.(T).standsAt(len(*r))
	*r = append(*r, x.(T))
}

func (r *ranking[T]) Pop() any {
	last := len(*r) - 1
	x := (*r)[last]
	clear((*r)[last:])
	*r = (*r)[:last]
	x.standsAt(-1)
	return x
}

func (r *ranking[T]) add(x T)          { heap.Push(r, x) }
func (r *ranking[T]) takeFirst() T     { return heap.Pop(r).(T) }
func (r *ranking[T]) remove(i int)     { heap.Remove(r, i) }
func (r *ranking[T]) putInOrder(i int) { heap.Fix(r, i) }
