// Package client is what frontends, datanodes and tools embed to talk to a metasrv cluster.
package client
