package partition

import (
	"cmp"
	"math"
	"strings"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Compare returns -1, 0 or 1 as a is below, equal to or above b. ok is false where the two have no order: one is
// NaN, or one is a number and the other a string. NULL is below and MAXVALUE above everything else.
func Compare(a, b Value) (order int, ok bool) {
	if a.isNaN() || b.isNaN() {
		return 0, false
	}
	if ra, rb := rank(a), rank(b); ra != rb {
		return cmp.Compare(ra, rb), true
	}
	switch {
	case rank(a) != rankOfValues:
		return 0, true
	case a.isNumber() && b.isNumber():
		return compareNumbers(a, b), true
	case a.kind == b.kind:
		return compareSame(a, b), true
	}
	return 0, false
}

const rankOfValues = 1

func rank(v Value) int {
	switch v.kind {
	case kindNull:
		return rankOfValues - 1
	case kindMax:
		return rankOfValues + 1
	}
	return rankOfValues
}

// order is Compare of values that are known to have an order: those of one column.
func order(a, b Value) int {
	c, _ := Compare(a, b)
	return c
}

func compareSame(a, b Value) int {
	switch a.kind {
	case kindString, kindBytes:
		return strings.Compare(a.str, b.str)
	case kindTimestamp:
		return cmp.Compare(a.int(), b.int())
	}
	return cmp.Compare(a.bits, b.bits)
}

func compareNumbers(a, b Value) int {
	switch {
	case a.kind == kindFloat64 && b.kind == kindFloat64:
		return cmp.Compare(a.float(), b.float())
	case a.kind == kindFloat64:
		return -compareWithFloat(b, a.float())
	case b.kind == kindFloat64:
		return compareWithFloat(a, b.float())
	}
	return compareIntegers(a, b)
}

func compareIntegers(a, b Value) int {
	aNegative := a.kind == kindInt64 && a.int() < 0
	bNegative := b.kind == kindInt64 && b.int() < 0
	switch {
	case aNegative && bNegative:
		return cmp.Compare(a.int(), b.int())
	case aNegative:
		return -1
	case bNegative:
		return 1
	}
	return cmp.Compare(a.bits, b.bits)
}

// The first floats above the largest integers; floats can't hold MaxInt64 and MaxUint64 themselves.
const (
	aboveInt64  = float64(1 << 63)
	aboveUint64 = float64(1 << 64)
)

// compareWithFloat compares the integer a with f without rounding either of them.
func compareWithFloat(a Value, f float64) int {
	whole, fraction, in := floor(f)
	switch {
	case !in && f < 0:
		return 1
	case !in:
		return -1
	}
	if c := compareIntegers(a, whole); c != 0 {
		return c
	}
	if fraction {
		return -1
	}
	return 0
}

// floor returns the largest integer that is not above f, and whether it differs from f. in is false where
// neither int64 nor uint64 holds it.
func floor(f float64) (whole Value, fraction, in bool) {
	w := math.Floor(f)
	switch {
	case w >= 0 && w < aboveUint64:
		return Uint64(uint64(w)), w != f, true
	case w < 0 && w >= -aboveInt64:
		return Int64(int64(w)), w != f, true
	}
	return Value{}, false, false
}

// fit says how a value goes into a column.
type fit int

const (
	// fits: the column holds exactly this value.
	fits fit = iota
	// orderable: the column can't hold the value, but orders it: 1.5 in a column of integers.
	orderable
	// foreign: the value has no order among those of the column.
	foreign
)

// convert returns the value as the column type t holds it. NULL fits every column.
func convert(v Value, t metasrvpb.DataType) (Value, fit) {
	k := kind(t)
	switch {
	case v.isNaN() || v.kind == kindMax:
		return v, foreign
	case v.kind == k || v.kind == kindNull:
		return v, fits
	case k == kindBytes && v.kind == kindString:
		return Value{kind: kindBytes, str: v.str}, fits
	case !v.isNumber() || !(Value{kind: k}).isNumber():
		return v, foreign
	}
	c := castNumber(v, k)
	if c.isNaN() || compareNumbers(c, v) != 0 {
		return v, orderable
	}
	return c, fits
}

// castNumber returns v as kind k, wrongly where k can't hold it.
func castNumber(v Value, k kind) Value {
	if k == kindFloat64 {
		if v.kind == kindInt64 {
			return Float64(float64(v.int()))
		}
		return Float64(float64(v.bits))
	}
	if v.kind == kindFloat64 {
		whole, _, in := floor(v.float())
		if !in {
			return Value{kind: k}
		}
		v = whole
	}
	return Value{kind: k, bits: v.bits}
}
