// Package proto holds the protocol between the parts of tsdb. The generated code is in tsdb/v1.
package proto

//go:generate go tool -modfile=../../../tools/go.mod buf lint ../../.. --config buf.yaml --path ../../../examples/tsdb/proto/tsdb
//go:generate go tool -modfile=../../../tools/go.mod buf generate ../../.. --config buf.yaml --template buf.gen.yaml --path ../../../examples/tsdb/proto/tsdb
