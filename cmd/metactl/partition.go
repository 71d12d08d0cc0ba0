package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// describeRule returns how a table is cut into regions.
func describeRule(rule *metasrvpb.PartitionRule) string {
	switch r := rule.GetRule().(type) {
	case *metasrvpb.PartitionRule_Range:
		return fmt.Sprintf("RANGE (%s), %s", strings.Join(r.Range.GetColumns(), ", "),
			plural(uint64(len(r.Range.GetBounds())), "partition"))
	case *metasrvpb.PartitionRule_Hash:
		return fmt.Sprintf("HASH (%s), %s", strings.Join(r.Hash.GetColumns(), ", "),
			plural(uint64(r.Hash.GetPartitions()), "partition"))
	}
	return none
}

// regionCount returns the number of regions that a rule plans.
func regionCount(rule *metasrvpb.PartitionRule) uint64 {
	switch r := rule.GetRule().(type) {
	case *metasrvpb.PartitionRule_Range:
		return uint64(len(r.Range.GetBounds()))
	case *metasrvpb.PartitionRule_Hash:
		return uint64(r.Hash.GetPartitions())
	}
	return 1
}

// describePartition returns which rows a region holds, given the table's rule or, for a table of the early
// public protocol, what the region's own partition says.
func describePartition(rule *metasrvpb.PartitionRule, region *metasrvpb.Region) string {
	switch r := rule.GetRule().(type) {
	case *metasrvpb.PartitionRule_Range:
		return describeRange(r.Range, int(region.GetPartitionNumber()))
	case *metasrvpb.PartitionRule_Hash:
		return fmt.Sprintf("hash(%s) mod %d = %d",
			strings.Join(r.Hash.GetColumns(), ", "), r.Hash.GetPartitions(), region.GetPartitionNumber())
	}
	if p := region.GetPartition(); len(p.GetColumnList()) > 0 {
		return fmt.Sprintf("%s < %s", texts(p.GetColumnList()), texts(p.GetValueList()))
	}
	return "all rows"
}

func describeRange(r *metasrvpb.RangeRule, number int) string {
	if number >= len(r.GetBounds()) {
		return "unknown partition " + strconv.Itoa(number)
	}
	columns := tuple(r.GetColumns())
	lower, upper := "", ""
	if number > 0 {
		lower = boundText(r.Bounds[number-1])
	}
	if !isMax(r.Bounds[number]) {
		upper = boundText(r.Bounds[number])
	}
	switch {
	case lower == "" && upper == "":
		return "all rows"
	case lower == "":
		return columns + " < " + upper
	case upper == "":
		return columns + " >= " + lower
	}
	return lower + " <= " + columns + " < " + upper
}

func isMax(b *metasrvpb.RangeBound) bool {
	for _, v := range b.GetValues() {
		if _, ok := v.GetKind().(*metasrvpb.Value_MaxValue); !ok {
			return false
		}
	}
	return true
}

func boundText(b *metasrvpb.RangeBound) string {
	values := make([]string, len(b.GetValues()))
	for i, v := range b.GetValues() {
		values[i] = valueText(v)
	}
	return tuple(values)
}

func tuple(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func valueText(v *metasrvpb.Value) string {
	switch k := v.GetKind().(type) {
	case *metasrvpb.Value_MaxValue:
		return "MAXVALUE"
	case *metasrvpb.Value_BoolValue:
		return strconv.FormatBool(k.BoolValue)
	case *metasrvpb.Value_Int64Value:
		return strconv.FormatInt(k.Int64Value, 10)
	case *metasrvpb.Value_Uint64Value:
		return strconv.FormatUint(k.Uint64Value, 10)
	case *metasrvpb.Value_Float64Value:
		return strconv.FormatFloat(k.Float64Value, 'g', -1, 64)
	case *metasrvpb.Value_StringValue:
		return strconv.Quote(k.StringValue)
	case *metasrvpb.Value_BytesValue:
		return fmt.Sprintf("0x%x", k.BytesValue)
	case *metasrvpb.Value_TimestampValue:
		return time.Unix(0, k.TimestampValue).UTC().Format(time.RFC3339Nano)
	}
	return "NULL"
}

func texts(list [][]byte) string {
	parts := make([]string, len(list))
	for i, b := range list {
		parts[i] = string(b)
	}
	return tuple(parts)
}
