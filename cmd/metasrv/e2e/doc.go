// Package e2e tests metasrv as processes: the real binary, real sockets, real files, kill -9.
package e2e
