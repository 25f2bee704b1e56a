package settings

import "fmt"

// didYouMean proposes the name that is most like a wrong one. It is empty if none is like it.
func didYouMean(wrong string, names []string) string {
	best, least := "", len(wrong)/3+2 // more than that is another word
	for _, name := range names {
		if d := distance(wrong, name); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// distance returns how many bytes must be inserted, deleted or replaced to get b from a.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of the table of distances between prefixes of a and b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
