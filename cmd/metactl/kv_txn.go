package main

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// parseTxn reads a transaction in the form of etcdctl.
func parseTxn(text string) (*metasrvpb.TxnRequest, error) {
	req := &metasrvpb.TxnRequest{}
	section := 0
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			if section++; section > 2 {
				return nil, usagef("line %d: there is a fourth part; a transaction has comparisons, commands, and commands for where they don't hold", i+1)
			}
			continue
		}
		if section == 0 {
			c, err := parseCompare(line)
			if err != nil {
				return nil, usagef("line %d: %v", i+1, err)
			}
			req.Compare = append(req.Compare, c)
			continue
		}
		op, err := parseTxnOp(line)
		if err != nil {
			return nil, usagef("line %d: %v", i+1, err)
		}
		if section == 1 {
			req.Success = append(req.Success, op)
		} else {
			req.Failure = append(req.Failure, op)
		}
	}
	return req, nil
}

// parseCompare reads a comparison such as mod("key") > "0".
func parseCompare(line string) (*metasrvpb.Compare, error) {
	target, rest, ok := strings.Cut(line, "(")
	if !ok {
		return nil, usagef("%q is no comparison, such as mod(\"key\") = \"0\"", line)
	}
	key, rest, err := unquote(rest)
	if err != nil {
		return nil, err
	}
	rest, ok = strings.CutPrefix(strings.TrimSpace(rest), ")")
	if !ok {
		return nil, usagef("%q lacks a ) behind the key", line)
	}
	c := &metasrvpb.Compare{Key: []byte(key)}
	rest = strings.TrimSpace(rest)
	for _, o := range []struct {
		text     string
		operator metasrvpb.CompareOperator
	}{
		{"!=", metasrvpb.CompareOperator_COMPARE_OPERATOR_NOT_EQUAL},
		{"=", metasrvpb.CompareOperator_COMPARE_OPERATOR_EQUAL},
		{">", metasrvpb.CompareOperator_COMPARE_OPERATOR_GREATER},
		{"<", metasrvpb.CompareOperator_COMPARE_OPERATOR_LESS},
	} {
		if after, ok := strings.CutPrefix(rest, o.text); ok {
			c.Operator, rest = o.operator, after
			break
		}
	}
	if c.Operator == metasrvpb.CompareOperator_COMPARE_OPERATOR_UNSPECIFIED {
		return nil, usagef("%q has none of the operators =, !=, <, >", line)
	}
	value, rest, err := unquote(rest)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(rest) != "" {
		return nil, usagef("%q goes on behind the comparison with %q", line, rest)
	}
	return c, setTarget(c, strings.TrimSpace(target), value)
}

func setTarget(c *metasrvpb.Compare, target, value string) error {
	if target == "value" || target == "val" {
		c.Target = &metasrvpb.Compare_Value{Value: []byte(value)}
		return nil
	}
	number, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return usagef("%s is compared with %q, which is no number", target, value)
	}
	switch target {
	case "mod":
		c.Target = &metasrvpb.Compare_ModRevision{ModRevision: number}
	case "create", "c":
		c.Target = &metasrvpb.Compare_CreateRevision{CreateRevision: number}
	case "version", "ver":
		c.Target = &metasrvpb.Compare_Version{Version: number}
	default:
		return usagef("%q can't be compared; mod, create, version and value can", target)
	}
	return nil
}

// unquote reads a word or a quoted string, and returns what is behind it.
func unquote(s string) (word, rest string, err error) {
	s = strings.TrimSpace(s)
	if quoted, err := strconv.QuotedPrefix(s); err == nil {
		word, err := strconv.Unquote(quoted)
		return word, s[len(quoted):], err
	}
	end := strings.IndexAny(s, " \t)\"'")
	if end < 0 {
		end = len(s)
	}
	if end == 0 {
		return "", "", usagef("a string is missing before %q", s)
	}
	return s[:end], s[end:], nil
}

// words splits a line at spaces that are not in quotes.
func words(line string) (out []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		var word string
		if word, line, err = unquote(line); err != nil {
			return nil, err
		}
		out = append(out, word)
	}
	return out, nil
}

func parseTxnOp(line string) (*metasrvpb.TxnOp, error) {
	command, err := words(line)
	if err != nil {
		return nil, err
	}
	var r kvRange
	var keysOnly, prevKV bool
	var limit int64
	flags := pflag.NewFlagSet(command[0], pflag.ContinueOnError)
	flags.BoolVar(&r.prefix, "prefix", false, "")
	flags.BoolVar(&r.fromKey, "from-key", false, "")
	flags.BoolVar(&keysOnly, "keys-only", false, "")
	flags.BoolVar(&prevKV, "prev-kv", false, "")
	flags.Int64Var(&limit, "limit", 0, "")
	if err := flags.Parse(command[1:]); err != nil {
		return nil, err
	}
	args := flags.Args()
	if command[0] == "put" {
		if len(args) != 2 {
			return nil, usagef("put takes a key and a value, not %d arguments", len(args))
		}
		return &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{
			Key: []byte(args[0]), Value: []byte(args[1]), PrevKv: prevKV,
		}}}, nil
	}
	if command[0] != "get" && command[0] != "del" {
		return nil, usagef("%q is no command of a transaction; get, put and del are", command[0])
	}
	if len(args) < 1 || len(args) > 2 {
		return nil, usagef("%s takes a key, and perhaps the end of a range, not %d arguments", command[0], len(args))
	}
	key, end, err := r.keys(args)
	if err != nil {
		return nil, err
	}
	if command[0] == "get" {
		return client.OpGet(key, end, limit, keysOnly), nil
	}
	return client.OpDelete(key, end, prevKV), nil
}
