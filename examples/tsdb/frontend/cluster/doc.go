// Package cluster reads and writes tables: it asks metasrv, through the client library, which tables there are
// and where their regions are, and talks to the datanodes that hold them. It knows nothing of SQL and HTTP.
package cluster
