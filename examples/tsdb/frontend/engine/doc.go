// Package engine makes go-mysql-server speak SQL over the tables of a cluster: databases are schemas, PARTITION
// BY becomes a partition rule, comparisons with constants are pushed to the datanodes, and what the cluster can't
// do is refused by name. It knows tables only through Store.
package engine
