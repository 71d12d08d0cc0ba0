package server

import (
	"net/http"
	"net/http/pprof"
	"time"
)

// newPprof returns the endpoints of Go's profiler. They show what the process does and can slow it down, so they
// have a port of their own, on loopback, that is closed unless it is asked for.
func newPprof() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
}
