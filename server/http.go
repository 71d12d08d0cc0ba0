package server

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// check is one thing that must be right; err says why it is not.
type check struct {
	name string
	err  error
}

// newHTTP returns the endpoints for supervisors: whether the process is alive, whether it is of use, metrics.
func newHTTP(live, ready func() []check, metrics prometheus.Gatherer) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", checkHandler("livez", live))
	mux.HandleFunc("GET /readyz", checkHandler("readyz", ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10}
}

// checkHandler answers 200 or 503, with a line for each check as Kubernetes writes them.
func checkHandler(name string, checks func() []check) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var body strings.Builder
		code, verdict := http.StatusOK, "passed"
		for _, c := range checks() {
			if c.err == nil {
				fmt.Fprintf(&body, "[+]%s ok\n", c.name)
				continue
			}
			code, verdict = http.StatusServiceUnavailable, "failed"
			fmt.Fprintf(&body, "[-]%s failed: %s\n", c.name, c.err)
		}
		fmt.Fprintf(&body, "%s check %s\n", name, verdict)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body.String())) // a caller that went away needs no answer
	}
}
