# Every target first installs what it needs (.ci/bootstrap; packages only, never a network card).

CARGO ?= cargo
# The fuzz targets are instrumented with flags of stable rustc, so no nightly and no cargo-fuzz.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1 \
	-Cdebug-assertions -Coverflow-checks --cfg fuzzing
FUZZ_SECONDS ?= 600
ROW ?= few
STACK ?= posix
MINUTES ?= 10
SEEDS ?= 10000
SCRIPTS ?= 10000
# Everything but the two DPDK crates builds and tests without DPDK.
PLAIN := --workspace --exclude dpdk-sys --exclude dpdk-glue --no-default-features

.PHONY: help setup demo test check test-plain test-dpdk test-system simulate
.PHONY: interop fuzz bench soak soak-seeds differential deny clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup: ## install what building and testing need
	@.ci/bootstrap

demo: setup ## messages over DPDK, over DPDK against the kernel, over the kernel: one table
	@$(CARGO) run --quiet --release --package msgr -- demo

test: setup check test-plain test-dpdk test-system ## what CI runs (root: some tests make network namespaces)
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=10

check: setup ## formatting, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

test-plain: ## tests that need neither DPDK nor root
	$(CARGO) test $(PLAIN)

test-dpdk: setup ## tests over DPDK's virtual devices
	$(CARGO) test --package dpdk-sys --package dpdk-glue
	$(CARGO) test --package netstack --test '*_dpdk'
	$(CARGO) test --package messenger --test 'cases_dpdk'

test-system: setup ## whole programs: processes, namespaces, kills (root)
	$(CARGO) test --package msgr --test '*' -- --test-threads=1
	@$(MAKE) --no-print-directory differential SCRIPTS=500

simulate: ## whole messengers, one clock: make simulate SEED=7 (again), SEEDS=5000 (many)
	@$(CARGO) run --quiet --release --package messenger-simulation -- \
		$(if $(SEED),--seed $(SEED),--first $(or $(FIRST),0) --seeds $(SEEDS))

soak-seeds: ## 10^5 seeds of the simulation
	@$(MAKE) --no-print-directory simulate SEEDS=100000

differential: setup ## our TCP against the kernel's, random scripts: make differential SCRIPTS=100000 FIRST=0 (root)
	@$(CARGO) run --quiet --package netstack --no-default-features --example differential -- \
		--scripts $(SCRIPTS) --first $(or $(FIRST),0)

interop: setup ## sessions with an independent speaker of the protocol: make interop PROBE=msgr2_probe.py
	@$(CARGO) build --quiet --release --package msgr
	@.ci/interop $(PROBE)

fuzz: setup ## every fuzz target for FUZZ_SECONDS each
	FUZZ_SECONDS=$(FUZZ_SECONDS) HOST=$(HOST) FUZZ_FLAGS='$(FUZZ_FLAGS)' CARGO=$(CARGO) .ci/fuzz

bench: setup ## everything in docs/performance.md, and its table anew (half an hour, a machine at rest)
	$(CARGO) build --release --package msgr
	@.ci/performance
	$(CARGO) bench --package netstack --no-default-features --bench native_worker
	$(CARGO) bench --package netstack --no-default-features --bench loss
	$(CARGO) bench --package netstack --bench kernel_loss
	$(CARGO) bench --package messenger --no-default-features --bench stalled_reader
	$(CARGO) bench --package messenger --no-default-features --bench secure_cost
	$(CARGO) bench --package messenger --no-default-features --bench stages

soak: setup ## the synthetic workload without growth: make soak ROW=few STACK=posix MINUTES=10
	@MALLOC_MMAP_THRESHOLD_=131072 $(CARGO) run --release --package messenger --example soak \
		$(if $(filter dpdk,$(STACK)),,--no-default-features) \
		-- --row $(ROW) --stack $(STACK) --minutes $(MINUTES)

deny: ## licences, sources and duplicates of dependencies (installs cargo-deny)
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

clean: ## remove everything built
	$(CARGO) clean
	rm -rf netstack/fuzz/target messenger/proto/fuzz/target
