// Package frontend is the part of tsdb that users talk to: a MySQL server (package engine) and InfluxDB line
// protocol over HTTP (package influx), both over the tables of a cluster (package cluster).
package frontend
