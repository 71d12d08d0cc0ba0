package main

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"
)

func TestPurity(t *testing.T) {
	const module = "github.com/metasrv/metasrv/"
	analysistest.Run(t, analysistest.TestData(), analyzer, module+"catalog", module+"heartbeat", module+"server")
}
