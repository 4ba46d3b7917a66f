package stream

// heap holds the open connections, the one that closes first at its top.
// container/heap would do the same through an interface at three times the cost.
type heap []made

func (h *heap) push(m made) {
	*h = append(*h, m)
	a := *h
	i := len(a) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if a[parent].closes <= m.closes {
			break
		}
		a[i] = a[parent]
		i = parent
	}
	a[i] = m
}

func (h *heap) pop() made {
	a := *h
	top, last := a[0], a[len(a)-1]
	a = a[:len(a)-1]
	*h = a
	if len(a) == 0 {
		return top
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= len(a) {
			break
		}
		if child+1 < len(a) && a[child+1].closes < a[child].closes {
			child++
		}
		if last.closes <= a[child].closes {
			break
		}
		a[i] = a[child]
		i = child
	}
	a[i] = last
	return top
}
