package kv

import (
	"bytes"
	"cmp"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// validateCompare returns ErrInvalidArgument, with a field of the comparison, for one that can't be executed.
func validateCompare(c *metasrvpb.Compare) error {
	if err := (Range{Key: c.GetKey(), End: c.GetRangeEnd()}).Validate(); err != nil {
		return err
	}
	operator := c.GetOperator()
	if _, known := metasrvpb.CompareOperator_name[int32(operator)]; !known {
		return metasrv.InvalidArgument("operator", "%d is unknown", operator)
	}
	switch target := c.GetTarget().(type) {
	case nil:
		return metasrv.InvalidArgument("target", "is absent: say what to compare, version, create_revision, mod_revision, value or exists")
	case *metasrvpb.Compare_Exists:
		if !isEqual(operator) {
			return metasrv.InvalidArgument("operator", "must be EQUAL where exists is compared")
		}
	case *metasrvpb.Compare_Value:
		return ValidateValue("value", target.Value)
	}
	return nil
}

func isEqual(o metasrvpb.CompareOperator) bool {
	return o == metasrvpb.CompareOperator_COMPARE_OPERATOR_EQUAL || o == metasrvpb.CompareOperator_COMPARE_OPERATOR_UNSPECIFIED
}

// holds reports whether every key in the range of a comparison fulfils it. A range without keys is compared as one
// absent key.
func holds(v state.View, c *metasrvpb.Compare) (bool, error) {
	if target, ok := c.GetTarget().(*metasrvpb.Compare_Exists); ok {
		from, to := Range{Key: c.GetKey(), End: c.GetRangeEnd()}.Bounds()
		for range v.Ascend(from, to) {
			return target.Exists, nil
		}
		return !target.Exists, nil
	}
	if len(c.GetRangeEnd()) == 0 {
		pair, err := Get(v, c.GetKey())
		return err == nil && fulfils(pair, c), err
	}
	found := false
	for pair, err := range Scan(v, Range{Key: c.GetKey(), End: c.GetRangeEnd()}) {
		if err != nil || !fulfils(&pair, c) {
			return false, err
		}
		found = true
	}
	return found || fulfils(nil, c), nil
}

// fulfils compares one pair, nil where the key is absent.
func fulfils(pair *Pair, c *metasrvpb.Compare) bool {
	absent := pair == nil
	if absent {
		pair = &Pair{}
	}
	order := 0
	switch target := c.GetTarget().(type) {
	case *metasrvpb.Compare_Version:
		order = cmp.Compare(pair.Version, target.Version)
	case *metasrvpb.Compare_CreateRevision:
		order = cmp.Compare(pair.CreateRevision, target.CreateRevision)
	case *metasrvpb.Compare_ModRevision:
		order = cmp.Compare(pair.ModRevision, target.ModRevision)
	case *metasrvpb.Compare_Value:
		if absent {
			return false
		}
		order = bytes.Compare(pair.Value, target.Value)
	}
	switch c.GetOperator() {
	case metasrvpb.CompareOperator_COMPARE_OPERATOR_NOT_EQUAL:
		return order != 0
	case metasrvpb.CompareOperator_COMPARE_OPERATOR_GREATER:
		return order > 0
	case metasrvpb.CompareOperator_COMPARE_OPERATOR_LESS:
		return order < 0
	}
	return order == 0
}
