// Package config owns what people have set for the whole cluster: one record, changed by commands. It refuses to act on it.
package config
