// Package config owns what is set for the whole cluster: one record, changed by commands. It refuses to act on it.
package config
