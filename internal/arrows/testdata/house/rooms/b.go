package rooms

func (m *many[T]) three() {}

type few struct{}

func (few) one() {}
func (few) two() {}
