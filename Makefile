# `make help` lists what can be done here.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
VERSION_FLAG := -X main.version=$(VERSION)
TOOL := go tool -modfile=internal/tools/go.mod

# What `go generate` writes; it is committed, so that a build needs Go alone.
GENERATED := 'internal/bpf/*_bpfel.go' 'internal/bpf/*_bpfel.o' docs/api

# Debian packages that the targets need beside Go; .ci/packages installs them.
TEST_PACKAGES := nftables iproute2 procps podman runc docker.io prometheus
# Whose connections are recorded and compared with what they say themselves.
APPLICATION_PACKAGES := nginx wrk curl postgresql redis-server iperf3 dnsmasq-base bind9-dnsutils python3
GENERATE_PACKAGES := clang-19 llvm-19 libbpf-dev
RACE_PACKAGES := gcc libc6-dev
BENCH_PACKAGES := g++ libc6-dev
KERNEL_PACKAGES := qemu-system-x86 cpio kmod xz-utils debian-archive-keyring
# What kernels of arm64 need more.
ARM64_PACKAGES := qemu-system-arm
# For example: make test TESTFLAGS=-v; make test EBPF_SERVER_TEST_KILLS=50 kills the program as often in each test that does.
TESTFLAGS ?=
# Which kernels make test-kernels boots, for example KERNELS="5.10 7.3"; all of them if it is empty.
KERNELS ?=
# How many events make bench keeps in the store and in what that is compared with.
EVENTS ?= 10000000
# Over how many connections make bench watches the program's memory.
CONNECTIONS ?= 5000000
# For how long 200 clients of make bench ask.
CLIENTS ?= 60s

##@ To use it

run: build ## Build, and start the monitor with configs/ebpf-server.yaml (as root)
	$(call as_root,bin/ebpf-server --config configs/ebpf-server.yaml)

build: ## Build bin/ebpf-server, one static file
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w $(VERSION_FLAG)" -o bin/ebpf-server ./cmd/ebpf-server

install: ## Install the program, its manual, the configuration and the systemd unit (as root, after build)
	@test -x bin/ebpf-server || { echo "nothing to install yet: run make build"; exit 1; }
	install -D -m 755 bin/ebpf-server $(DESTDIR)/usr/local/bin/ebpf-server
	@if [ -e $(DESTDIR)/etc/ebpf-server/ebpf-server.yaml ]; then echo "keeping $(DESTDIR)/etc/ebpf-server/ebpf-server.yaml"; \
	else install -v -D -m 644 configs/ebpf-server.yaml $(DESTDIR)/etc/ebpf-server/ebpf-server.yaml; fi
	install -D -m 644 configs/ebpf-server.service $(DESTDIR)/etc/systemd/system/ebpf-server.service
	bin/ebpf-server man $(DESTDIR)/usr/local/share/man/man8
	@mkdir -p $(DESTDIR)/usr/local/share/bash-completion/completions
	bin/ebpf-server completion bash > $(DESTDIR)/usr/local/share/bash-completion/completions/ebpf-server
	@if [ -d /run/systemd/system ] && [ -z "$(DESTDIR)" ]; then systemctl daemon-reload; fi
	@echo "start it with: systemctl enable --now ebpf-server"

uninstall: ## Remove the program and the unit; configuration and events stay (as root)
	@if [ -d /run/systemd/system ] && [ -z "$(DESTDIR)" ]; then systemctl disable --now ebpf-server || true; fi
	rm -f $(DESTDIR)/usr/local/bin/ebpf-server $(DESTDIR)/etc/systemd/system/ebpf-server.service
	rm -f $(DESTDIR)/usr/local/share/man/man8/ebpf-server*.8 $(DESTDIR)/usr/local/share/bash-completion/completions/ebpf-server
	@if [ -d /run/systemd/system ] && [ -z "$(DESTDIR)" ]; then systemctl daemon-reload; fi
	@echo "kept: /etc/ebpf-server (configuration) and /var/lib/ebpf-server (events)"

##@ To work on it

test: ## Run all tests (as root: also those that load eBPF programs)
	@.ci/packages $(TEST_PACKAGES) $(APPLICATION_PACKAGES) $(GENERATE_PACKAGES) $(BENCH_PACKAGES) || [ "$$(id -u)" != 0 ]
	@if [ "$$(id -u)" != 0 ]; then echo "not root: tests that load eBPF programs or make network namespaces are skipped (sudo make test runs them)"; fi
	go test -count=1 -p 1 $(TESTFLAGS) ./...
	cd internal/tools/bench && CGO_ENABLED=1 go test -count=1 $(TESTFLAGS) ./...

test-kernels: ## Run the capture tests on stock kernels in qemu, docs/kernels.md (KERNELS="5.10 6.12-arm64" for some)
	@.ci/packages $(KERNEL_PACKAGES) $(if $(findstring arm64,$(or $(KERNELS),all with arm64)),$(ARM64_PACKAGES))
	@internal/tools/kernels/run $(KERNELS)

test-unit: build ## Start the systemd unit on Debian in qemu, and see that it works
	@.ci/packages $(KERNEL_PACKAGES) $(if $(filter arm64,$(shell go env GOARCH)),$(ARM64_PACKAGES))
	@internal/tools/kernels/unit

check: lint deadcode check-generated ## All that CI checks beside the tests: format, lint, dead code, generated files

lint: ## Check format and code (golangci-lint, see .golangci.yml)
	$(TOOL) golangci-lint fmt --diff
	$(TOOL) golangci-lint run
	cd internal/tools/bench && CGO_ENABLED=0 go vet ./...

format: ## Format all Go code
	$(TOOL) golangci-lint fmt

deadcode: ## Find functions that nothing calls
	@found=$$($(TOOL) deadcode -test ./...); if [ -n "$$found" ]; then echo "$$found"; exit 1; fi

generate: ## Compile the eBPF programs, and make the Go code and documents that come from sources
	@.ci/packages $(GENERATE_PACKAGES)
	go generate ./...

check-generated: generate ## Check that the generated files in git are up to date
	@.ci/generated $(GENERATED)

docs: ## Make docs/api, the OpenAPI document, from the code's annotations
	go generate ./internal/api/...

vmlinux: ## Rewrite bpf/include/vmlinux.h from the running kernel
	@.ci/packages bpftool
	@{ echo "// generated by make vmlinux from the BTF of Linux $$(uname -r | cut -d- -f1) ($$(uname -m)); do not edit" && \
	bpftool btf dump file /sys/kernel/btf/vmlinux format c; } > bpf/include/vmlinux.h.new || { rm bpf/include/vmlinux.h.new; exit 1; }
	@mv bpf/include/vmlinux.h.new bpf/include/vmlinux.h

bench: ## Measure capture, store and queries (as root), then the store beside its peers (EVENTS=100000000 for more, CONNECTIONS=500000 CLIENTS=10s for less)
	@.ci/packages $(TEST_PACKAGES) $(GENERATE_PACKAGES) $(BENCH_PACKAGES) || [ "$$(id -u)" != 0 ]
	EBPF_SERVER_TEST_CONNECTIONS=$(CONNECTIONS) EBPF_SERVER_TEST_CLIENTS=$(CLIENTS) go test -timeout 1h -run '^$$' -bench . ./cmd/ebpf-server ./internal/store ./internal/query
	cd internal/tools/bench && CGO_ENABLED=1 go run . --events=$(EVENTS)

build-dev: ## Build bin/ebpf-server-dev, with the race detector
	@.ci/packages $(RACE_PACKAGES)
	CGO_ENABLED=1 go build -race -buildvcs=false -ldflags "$(VERSION_FLAG)" -o bin/ebpf-server-dev ./cmd/ebpf-server

run-dev: build-dev ## Start that one with the debug log, on a file of its own, bin/dev.db (as root)
	$(call as_root,bin/ebpf-server-dev --config configs/ebpf-server.yaml --log-level debug --db bin/dev.db)

clean: ## Remove what was built
	rm -rf bin build coverage

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Runs $(1) as root: directly, by sudo, or not at all.
define as_root
	@if [ "$$(id -u)" = 0 ]; then exec $(1); fi; \
	if command -v sudo >/dev/null; then exec sudo $(1); fi; \
	echo "loading eBPF programs needs root: run as root, or install sudo"; exit 1
endef

.PHONY: run build install uninstall test test-kernels test-unit check lint format deadcode generate check-generated docs vmlinux bench build-dev run-dev clean help
