// Package column maps the columns of tables between MySQL and metasrv: their types, and the values of rows.
// A type that can't be kept exactly is refused by its name, and so is a value; none is ever changed silently.
//
// A stored value is one of nil (NULL), bool, int64, uint64, float64, string, []byte and Timestamp, by the
// column's metasrv type. A value of the SQL engine is what go-mysql-server has for the column's MySQL type.
package column
