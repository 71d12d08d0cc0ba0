package partition

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestCompare(t *testing.T) {
	inf := math.Inf(1)
	// Each line is above the one before; the values of a line are equal.
	lines := [][]Value{
		{Null()},
		{Float64(-inf)},
		{Float64(-1e300)},
		{Int64(math.MinInt64), Float64(-1 << 63)},
		{Int64(math.MinInt64 + 1)},
		{Float64(-1.5)},
		{Int64(-1), Float64(-1)},
		{Float64(-0.5)},
		{Int64(0), Uint64(0), Float64(0), Float64(math.Copysign(0, -1))},
		{Float64(5e-324)},
		{Uint64(1 << 53), Int64(1 << 53), Float64(1 << 53)},
		{Uint64(1<<53 + 1), Int64(1<<53 + 1)},
		{Int64(math.MaxInt64), Uint64(math.MaxInt64)},
		{Uint64(1 << 63), Float64(1 << 63)},
		{Uint64(math.MaxUint64)},
		{Float64(1 << 64)},
		{Float64(inf)},
		{MaxValue()},
	}
	for i, as := range lines {
		for j, bs := range lines {
			want := min(1, max(-1, i-j))
			for _, a := range as {
				for _, b := range bs {
					if got, ok := Compare(a, b); !ok || got != want {
						t.Errorf("Compare(%s %s, %s %s) = %d, %t, want %d", a.kind, a, b.kind, b, got, ok, want)
					}
				}
			}
		}
	}
}

func TestCompareRefuses(t *testing.T) {
	nan := Float64(math.NaN())
	for _, pair := range [][2]Value{
		{nan, nan}, {nan, Int64(1)}, {Null(), nan}, {String("1"), Int64(1)}, {String("a"), Bytes([]byte("a"))},
		{Timestamp(1), Int64(1)}, {Bool(true), Int64(1)},
	} {
		if _, ok := Compare(pair[0], pair[1]); ok {
			t.Errorf("%s and %s have an order", pair[0], pair[1])
		}
	}
}

// Exact arithmetic is the judge.
func TestCompareNumbersIsExact(t *testing.T) {
	exact := func(v Value) *big.Float {
		f := new(big.Float).SetPrec(2000)
		switch v.kind {
		case kindInt64:
			return f.SetInt64(v.int())
		case kindUint64:
			return f.SetUint64(v.bits)
		}
		return f.SetFloat64(v.float())
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawNumber().Draw(t, "a"), drawNumber().Draw(t, "b")
		if got, want := order(a, b), exact(a).Cmp(exact(b)); got != want {
			t.Fatalf("Compare(%s %s, %s %s) = %d, want %d", a.kind, a, b.kind, b, got, want)
		}
	})
}

// drawNumber draws numbers that are close together around the edges of the types.
func drawNumber() *rapid.Generator[Value] {
	return rapid.Custom(func(t *rapid.T) Value {
		edge := rapid.SampledFrom([]float64{0, 1 << 53, 1 << 62, 1 << 63, 1 << 64, -1 << 53, -1 << 63}).Draw(t, "edge")
		near := rapid.Int64Range(-3, 3).Draw(t, "near")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			i, _ := big.NewFloat(edge).Int(nil)
			i.Add(i, big.NewInt(near))
			if i.IsInt64() {
				return Int64(i.Int64())
			}
			return Int64(near)
		case 1:
			i, _ := big.NewFloat(edge).Int(nil)
			i.Add(i, big.NewInt(near))
			if i.IsUint64() {
				return Uint64(i.Uint64())
			}
			return Uint64(uint64(near + 3))
		case 2:
			return Float64(edge + float64(near)/2)
		}
		f := edge
		for range near {
			f = math.Nextafter(f, math.Inf(1))
		}
		return Float64(f)
	})
}

func TestValueProtoRoundTrip(t *testing.T) {
	for _, v := range everyKind {
		got, err := FromProto(v.Proto())
		if err != nil || got != v {
			t.Errorf("%s came back as %s, %v", v, got, err)
		}
	}
	if v, err := FromProto(nil); err != nil || !v.IsNull() {
		t.Errorf("nil is %s, %v", v, err)
	}
}

var everyKind = []Value{
	Null(), MaxValue(), Bool(false), Bool(true), Int64(math.MinInt64), Uint64(math.MaxUint64), Float64(-1.5e-7),
	Float64(1e21), String(""), String("a<b>&\u2028\"'\\"), Bytes([]byte{0, 255}), Bytes(nil),
	Timestamp(math.MaxInt64), Timestamp(math.MinInt64),
}

func TestValueString(t *testing.T) {
	tests := []struct {
		v    Value
		want string
	}{
		{Null(), "NULL"},
		{MaxValue(), "MAXVALUE"},
		{Bool(true), "true"},
		{Int64(-10), "-10"},
		{Float64(1.5), "1.5"},
		{String("it's \"so\"\n"), `'it''s "so"\n'`},
		{Bytes([]byte{0, 255}), "x'00ff'"},
		{Timestamp(1_500_000_000), "'1970-01-01T00:00:01.5Z'"},
	}
	for _, test := range tests {
		if got := test.v.String(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}
