package engine

import (
	"context"
	"errors"
	"strings"

	"github.com/dolthub/vitess/go/mysql"

	"github.com/metasrv/metasrv"
)

// MySQL error codes that vitess has no name for.
const (
	erCantCreateTable       = 1005
	erDBDropExists          = 1008
	erDBNotEmpty            = 1010
	erDataTooLong           = 1406
	erDataOutOfRange        = 1264
	erTableDefChanged       = 1412
	erPartitionsMustDefined = 1492
	erRangeNotIncreasing    = 1493
	erPartitionField        = 1488
	erTooManyPartitions     = 1499
	erUniqueKeyNeedAll      = 1503
	erNoPartitions          = 1504
	erQueryInterrupted      = 1317
)

func sqlError(code int, state, format string, args ...any) error {
	return mysql.NewSQLError(code, state, format, args...)
}

// notSupported returns the error of a statement that this database refuses.
func notSupported(format string, args ...any) error {
	return sqlError(mysql.ERNotSupportedYet, "42000", format, args...)
}

// toMySQL returns the error as MySQL clients know it. Errors that are none of metasrv's stay as they are.
func toMySQL(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return sqlError(erQueryInterrupted, "70100", "%s", err)
	}
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok {
		return err
	}
	for _, m := range []struct {
		is    *metasrv.Error
		code  int
		state string
	}{
		{metasrv.ErrSchemaNotFound, mysql.ERBadDb, "42000"},
		{metasrv.ErrSchemaExists, mysql.ERDbCreateExists, "HY000"},
		{metasrv.ErrSchemaNotEmpty, erDBNotEmpty, "HY000"},
		{metasrv.ErrTableNotFound, mysql.ERNoSuchTable, "42S02"},
		{metasrv.ErrTableExists, mysql.ERTableExists, "42S01"},
		{metasrv.ErrNoLiveDatanode, erCantCreateTable, "HY000"},
		{metasrv.ErrTooFewDatanodes, erCantCreateTable, "HY000"},
		{metasrv.ErrNodesNotHeard, erCantCreateTable, "HY000"},
		{metasrv.ErrSchemaVersionChanged, erTableDefChanged, "HY000"},
	} {
		if errors.Is(e, m.is) {
			return sqlError(m.code, m.state, "%s", err)
		}
	}
	if errors.Is(e, metasrv.ErrInvalidArgument) {
		code, state := codeOfField(e.Field)
		return sqlError(code, state, "%s", strings.Replace(err.Error(), e.Field+": ", inSQL(e.Field)+": ", 1))
	}
	return sqlError(mysql.ERUnknownError, "HY000", "%s", err)
}

// inSQL returns the words that SQL has for a request field.
func inSQL(field string) string {
	switch {
	case strings.HasSuffix(field, ".partitions"):
		return "PARTITIONS"
	case strings.HasPrefix(field, "partition_rule"):
		return "PARTITION BY"
	case strings.HasSuffix(field, "table_name"):
		return "table name"
	case strings.HasSuffix(field, "schema_name"):
		return "database name"
	}
	return field
}

// codeOfField returns the code for a request field that metasrv refused.
func codeOfField(field string) (int, string) {
	switch {
	case strings.HasPrefix(field, "partition_rule.range.bounds"):
		return erRangeNotIncreasing, "HY000"
	case strings.HasSuffix(field, ".partitions"):
		return erTooManyPartitions, "HY000"
	case strings.Contains(field, ".columns"):
		return erPartitionField, "HY000"
	case strings.HasSuffix(field, "table_name"):
		return mysql.ERWrongTableName, "42000"
	case strings.HasSuffix(field, "schema_name"):
		return mysql.ERWrongDbName, "42000"
	}
	return mysql.ERUnknownError, "HY000"
}

// corrected gives errors that the engine sends as unknown ones the code that MySQL has for them.
func corrected(err error) error {
	if err == nil {
		return nil
	}
	e, ok := err.(*mysql.SQLError) //nolint:errorlint // the engine returns it unwrapped
	if !ok || e == nil || e.Num != mysql.ERUnknownError {
		return err
	}
	if _, why, ok := strings.Cut(e.Message, refusalPrefix); ok {
		return notSupported("%s", why)
	}
	for _, m := range []struct {
		part, state string
		code        int
	}{
		{"syntax error", "42000", mysql.ERParseError},
		{"no database selected", "3D000", mysql.ERNoDb},
		{"invalid database name", "42000", mysql.ERWrongDbName},
		{"out of range for", "22003", erDataOutOfRange},
		{"is too large for column", "22001", erDataTooLong},
	} {
		if strings.Contains(e.Message, m.part) {
			return mysql.NewSQLError(m.code, m.state, "%s", e.Message)
		}
	}
	return err
}
