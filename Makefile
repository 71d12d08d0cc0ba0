# Everything here runs on a machine that has only Go and GNU make. Tools are built from the versions pinned in
# tools/go.mod (protocol) and tools/lint/go.mod (linter); nothing is installed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:

GO ?= go
# hashicorp/go-metrics feeds another global sink without this tag; every build and test needs it.
TAGS := hashicorpmetrics
# A test that hangs is killed with a stack trace of every goroutine.
TEST_TIMEOUT ?= 8m
TESTFLAGS ?=

MODULES := . examples/tsdb bench
BIN := $(CURDIR)/bin
BINARIES := -metasrv $(BIN)/metasrv -metactl $(BIN)/metactl -tsdb $(BIN)/tsdb
PROTO_DIRS := proto examples/tsdb/proto
BUF := $(GO) tool -modfile=$(CURDIR)/tools/go.mod buf
# The example's messages use those of metasrv.v1, so buf reads them from the root.
FROM_ROOT := ../../.. --config buf.yaml --path ../../../examples/tsdb/proto/tsdb
GOLANGCI := $(GO) tool -modfile=$(CURDIR)/tools/lint/go.mod golangci-lint
# The linter reads files of one module at a time; paths in the configuration are relative to the root in both.
LINT_CONFIG := $(CURDIR)/.golangci.yml

# $(call each-module,command) runs the command in the folder of each module.
each-module = for module in $(MODULES); do (cd $$module && $(1)); done

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## Build bin/metasrv, bin/metactl and bin/tsdb
	$(GO) build -tags $(TAGS) -o $(BIN)/ ./cmd/...
	cd examples/tsdb && $(GO) build -tags $(TAGS) -o $(BIN)/ ./cmd/... ./demo ./chaos

.PHONY: test
test: ## Run every test of both modules
	$(call each-module,$(GO) test -tags $(TAGS) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./...)

.PHONY: race
race: ## Run every test of both modules under the race detector (needs a C compiler)
	$(call each-module,CGO_ENABLED=1 $(GO) test -race -tags $(TAGS) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./...)

# Two processes of schedules, one for each core, of LINEAR_SCHEDULES each. LINEAR_SECONDS bounds them, SEED repeats one
# schedule, FIRST chooses the first seed; DURATION is how long real processes are disturbed. Histories that are wrong go to LINEAR_OUT.
LINEAR_SECONDS ?= 200
LINEAR_SCHEDULES ?= 1500
DURATION ?= 1m

.PHONY: linear
linear: ## Check histories under faults: simulated, with broken builds that must be caught, and with real processes
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT
	$(GO) test -c -tags $(TAGS) -o "$$tmp/sim" ./cmd/metasrv/sim
	if [ -n "$${SEED:-}" ]; then "$$tmp/sim" -test.v -test.count=20 -test.failfast -test.run TestSchedules; exit; fi
	$(GO) test -c -tags $(TAGS),broken -o "$$tmp/broken" ./cmd/metasrv/sim
	first=$${FIRST:-$$(( $$(date +%s) % 1000000 * 10000 ))}
	export SECONDS_LIMIT=$(LINEAR_SECONDS) SCHEDULES=$(LINEAR_SCHEDULES)
	FIRST=$$first "$$tmp/sim" -test.v -test.timeout $(TEST_TIMEOUT) -test.run TestSchedules & one=$$!
	FIRST=$$(( first + 5000 )) "$$tmp/sim" -test.v -test.timeout $(TEST_TIMEOUT) -test.run TestSchedules & two=$$!
	failed=0; wait $$one || failed=1; wait $$two || failed=1
	"$$tmp/broken" -test.v -test.timeout $(TEST_TIMEOUT) -test.run TestCheckerBites || failed=1
	DURATION=$(DURATION) $(GO) test -tags $(TAGS) -count=1 -v -run TestSoak ./cmd/metasrv/e2e || failed=1
	exit $$failed

.PHONY: fences
fences: ## Take each fence that keeps a region to one writer out of the source, and want its test to fail
	$(GO) run -tags $(TAGS) ./internal/fences

.PHONY: soak
soak: ## Disturb real processes for DURATION (such as 1h) from SEED, and check what their clients saw
	DURATION=$(DURATION) $(GO) test -tags $(TAGS) -count=1 -v -timeout 0 -run TestSoak ./cmd/metasrv/e2e

# Fences that datanodes built with the tag broken leave out: then a promise must be seen broken. FENCES="lease epoch" tries both;
# without the second one it took half a minute to more than four until it was seen, so store.TestReplay stands for it.
FENCES ?= lease

.PHONY: chaos
chaos: build ## Disturb a whole database for DURATION (such as 1h) from SEED, and check that nothing acknowledged is lost
	@$(BIN)/chaos $(BINARIES) -duration $(DURATION) -seed $(or $(SEED),0)
	[ -z "$(SEED)" ] || exit 0
	cd examples/tsdb && $(GO) build -tags $(TAGS),broken -o $(BIN)/tsdb-broken ./cmd/tsdb
	for fence in $(FENCES); do
	  echo "datanodes without the fence $$fence must be caught"
	  $(BIN)/chaos $(BINARIES) -tsdb $(BIN)/tsdb-broken -broken "$$fence" -only 'pause datanode' -duration 15m
	done

.PHONY: chaos-times
chaos-times: build ## Measure how long 500 regions of a killed datanode can't be written, and what a drain costs clients
	@$(BIN)/chaos $(BINARIES) -times

.PHONY: demo
demo: build ## Show a whole cluster surviving the loss of its leader and of a datanode, then end it
	$(BIN)/demo $(BINARIES)

.PHONY: run
run: build ## Start the cluster of the demo and leave it running until Ctrl-C
	$(BIN)/demo $(BINARIES) -stay

# What `make bench-etcd` measures: see docs/performance.md.
DURATION ?= 60s
ROUNDS ?= 2
CLIENTS ?= 1,64,256
KILLS ?= 20
TABLES ?= 100000
ONLY ?=

.PHONY: bench-tools
bench-tools:
	$(GO) build -tags $(TAGS) -o $(BIN)/ ./cmd/...
	cd bench && $(GO) build -o $(BIN)/ . && $(GO) build -modfile=etcd.mod -o $(BIN)/etcd go.etcd.io/etcd/server/v3

BENCH = $(BIN)/bench -metasrv $(BIN)/metasrv -metactl $(BIN)/metactl -etcd $(BIN)/etcd

.PHONY: bench-etcd
bench-etcd: bench-tools ## Compare with etcd (DURATION=60s ROUNDS=2 CLIENTS=1,64,256 KILLS=20 TABLES=100000 ONLY=put,range)
	$(BENCH) -duration $(DURATION) -rounds $(ROUNDS) -clients $(CLIENTS) -kills $(KILLS) -tables $(TABLES) -only '$(ONLY)'

.PHONY: bench-quick
bench-quick: bench-tools ## Show in a minute or two that the comparison works; its figures mean nothing
	$(BENCH) -quick -only '$(ONLY)'

.PHONY: proto
proto: ## Generate the Go code of the protocol
	cd $(CURDIR)/proto && $(BUF) generate
	cd $(CURDIR)/examples/tsdb/proto && $(BUF) generate $(FROM_ROOT) --template buf.gen.yaml

.PHONY: check-proto
check-proto: ## Fail if the generated code is not what the protocol generates
	tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT
	cd $(CURDIR)/proto && $(BUF) generate -o "$$tmp/proto"
	cd $(CURDIR)/examples/tsdb/proto && $(BUF) generate $(FROM_ROOT) --template buf.gen.yaml -o "$$tmp/examples/tsdb/proto"
	sums() { cd "$$1" && find $(PROTO_DIRS) -name '*.pb.go' -exec sha256sum {} + | sort -k 2; }
	diff <(sums $(CURDIR)) <(sums "$$tmp") || { echo 'run make proto, and commit what it changes' >&2; exit 1; }

.PHONY: proto-lint
proto-lint: ## Check the style of the protocol
	cd $(CURDIR)/proto && $(BUF) lint
	cd $(CURDIR)/examples/tsdb/proto && $(BUF) lint $(FROM_ROOT)

.PHONY: proto-breaking
# A clone of another branch has main only as that of its origin. What main got since the branch began is not compared.
proto-breaking: BASE = main
proto-breaking: ## Compare the protocol with BASE (main): nothing that is promised may change
	base=$$(git merge-base HEAD $(BASE) 2>/dev/null || git merge-base HEAD origin/$(BASE)) ||
		{ echo "there is no branch $(BASE) to compare with: git fetch origin $(BASE):$(BASE), or set BASE" >&2; exit 1; }
	cd $(CURDIR)/proto && $(BUF) breaking --against "../.git#ref=$$base,subdir=proto"

.PHONY: fmt
fmt: ## Format the Go code
	$(call each-module,$(GOLANGCI) fmt --config $(LINT_CONFIG))

.PHONY: check-fmt
check-fmt: ## Fail if gofmt would change a file
	files=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go'))
	if [ -n "$$files" ]; then printf 'not formatted, run make fmt:\n%s\n' "$$files" >&2; exit 1; fi

.PHONY: lint
lint: ## Lint both modules: bugs, dependency directions, purity of apply code
	$(call each-module,$(GOLANGCI) run --config $(LINT_CONFIG) ./...)
	$(GO) test -C tools/lint ./purity
	$(GO) build -C tools/lint -o $(BIN)/purity ./purity
	$(GO) vet -tags $(TAGS) -vettool=$(BIN)/purity ./...

.PHONY: tidy-check
tidy-check: ## Fail if go mod tidy would change a go.mod or go.sum
	$(call each-module,$(GO) mod tidy -diff)

.PHONY: clean
clean: ## Remove what build made
	rm -rf $(BIN)
