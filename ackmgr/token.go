package ackmgr

// Token names one pending entry. Its bits, high to low: tag 12, loop 8,
// slot 22, generation 22. No token is 0, because no generation is.
type Token uint64

const (
	tagBits        = 12
	loopBits       = 8
	slotBits       = 22
	generationBits = 22

	maxTag        = 1<<tagBits - 1
	maxSlots      = 1 << slotBits
	maxGeneration = 1<<generationBits - 1

	slotShift = generationBits
	loopShift = slotShift + slotBits
	tagShift  = loopShift + loopBits
)

func makeToken(tag uint16, loop uint8, slot ref, generation uint32) Token {
	return Token(tag)<<tagShift | Token(loop)<<loopShift | Token(slot)<<slotShift | Token(generation)
}

// Tag returns the tag of the incarnation that made the token. Any goroutine
// may call it, on any value.
func (t Token) Tag() uint16 { return uint16(t >> tagShift) }

// Loop returns the number of the event loop that made the token, 0 to 255. Any
// goroutine may call it, on any value.
func (t Token) Loop() int { return int(uint8(t >> loopShift)) }

func (t Token) slot() ref { return ref(t>>slotShift) & (maxSlots - 1) }

func (t Token) generation() uint32 { return uint32(t) & maxGeneration }
