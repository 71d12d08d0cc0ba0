package partition

// Op is what a Condition says of a column. As in SQL, a comparison holds for no row where one side is NULL.
type Op int

// The operators of conditions.
const (
	// OpOther is a condition that Prune doesn't understand; it excludes nothing.
	OpOther Op = iota
	// OpEqual: the column equals the value.
	OpEqual
	// OpIn: the column equals one of the values.
	OpIn
	// OpLess: the column is below the value.
	OpLess
	// OpLessOrEqual: the column is not above the value.
	OpLessOrEqual
	// OpGreater: the column is above the value.
	OpGreater
	// OpGreaterOrEqual: the column is not below the value.
	OpGreaterOrEqual
	// OpBetween: the column is not below the first and not above the second value.
	OpBetween
	// OpIsNull: the column is NULL; no value.
	OpIsNull
	// OpIsNotNull: the column is not NULL; no value.
	OpIsNotNull
)

// Condition is what a query asks of one column. Conditions whose comparison differs from the one of this package,
// such as those of a case-insensitive collation, must be left out by the caller.
type Condition struct {
	Column string
	Op     Op
	Values []Value
}

// maxPrunedPoints bounds the work of pruning a hash rule by IN lists over several columns.
const maxPrunedPoints = 4096

// Prune returns the partitions, rising, that may hold rows for which all conditions hold: all partitions where
// there are no conditions, none where they contradict each other. Conditions on other columns, with values that
// have no order among the column's, and those that are malformed exclude nothing.
func (p *Partitioner) Prune(conditions []Condition) []int {
	sets := make([]columnSet, len(p.columns))
	for k, t := range p.types {
		sets[k] = everything(t)
	}
	for _, c := range conditions {
		for k, name := range p.columns {
			if name == c.Column {
				sets[k].restrict(c)
			}
		}
	}
	for k := range sets {
		if sets[k].empty() {
			return nil
		}
	}
	if p.partitions > 0 {
		return p.pruneHash(sets)
	}
	return p.pruneRange(sets)
}

func (p *Partitioner) pruneRange(sets []columnSet) []int {
	var left []int
	for i := range p.Len() {
		var lower, upper []Value
		if i > 0 {
			lower = p.bounds[i-1]
		}
		if i < p.Len()-1 {
			upper = p.bounds[i]
		}
		if meets(sets, lower, upper) {
			left = append(left, i)
		}
	}
	return left
}

// meets reports whether a row made of values of the sets may be at or above lower and below upper, column after
// column; nil is no bound. No set is empty.
func meets(sets []columnSet, lower, upper []Value) bool {
	switch {
	case lower == nil && upper == nil:
		return true
	case len(sets) == 0:
		return upper == nil // the row equals the bound: lower is inclusive, upper is not
	case lower != nil && upper != nil && order(lower[0], upper[0]) == 0:
		return sets[0].has(lower[0]) && meets(sets[1:], lower[1:], upper[1:])
	case sets[0].hasBetween(first(lower), first(upper)):
		return true
	case lower != nil && sets[0].has(lower[0]) && meets(sets[1:], lower[1:], nil):
		return true
	}
	return upper != nil && sets[0].has(upper[0]) && meets(sets[1:], nil, upper[1:])
}

func first(bound []Value) *Value {
	if bound == nil {
		return nil
	}
	return &bound[0]
}

func (p *Partitioner) pruneHash(sets []columnSet) []int {
	rows := 1
	for k := range sets {
		n, finite := sets[k].count()
		if !finite || n > maxPrunedPoints/rows {
			return all(p.partitions)
		}
		rows *= n
	}
	hit := make([]bool, p.partitions)
	row := make([]Value, len(sets))
	for i := range rows {
		for k := range sets {
			n, _ := sets[k].count()
			row[k] = sets[k].at(i % n)
			i /= n
		}
		hit[p.find(row)] = true
	}
	var left []int
	for i, h := range hit {
		if h {
			left = append(left, i)
		}
	}
	return left
}

func all(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
