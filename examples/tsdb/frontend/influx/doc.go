// Package influx takes InfluxDB line protocol over HTTP.
//
// POST /write?db=SCHEMA&precision=ns|us|ms|s stores all points of its body, or answers an error and may have
// stored some. A point is a row of the table that its measurement names: tags and fields are columns. Rows with
// the same primary key are replaced, so a request that failed can be repeated.
package influx
