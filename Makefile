# The verbs of this project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 300
TORTURE_SEEDS ?= 100000
ARGS ?=

.PHONY: help run build test lint fmt clippy doc deny bench bench-data bench-query bench-store bench-gateway fuzz soak torture interop

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: ## build and start `kaudit dev`: sandbox, gateway, audit logs, demo traffic (ARGS="--no-traffic" etc.)
	$(CARGO) run --quiet --package kaudit --bin kaudit -- dev $(ARGS)

build: ## release binary in target/release/kaudit, with S3
	$(CARGO) build --release --package kaudit --bin kaudit --features s3

test: ## all tests: unit, property, vectors, real logs, sockets, kubectl where it is on PATH
	$(CARGO) test --workspace --all-features --no-fail-fast

lint: fmt clippy doc deny ## fmt, clippy, doc, deny

fmt:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings

doc: ## API documentation in target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --all-features

deny: ## licences, bans and sources of dependencies (installs cargo-deny if it is missing)
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked --version 0.20.2
	$(CARGO) fetch --locked
	$(CARGO) deny --offline --all-features check licenses bans sources

bench: ## benchmarks, side by side with Go where Go is installed; prints a table of ratios
	bash bench/run

bench-data: bench/data/audit.log ## a generated audit log of 1 GB in bench/data (Python 3)

bench/data/audit.log:
	mkdir -p bench/data
	python3 bench/gen_events.py $@.part 1e9 1 2026-11-22 24
	mv $@.part $@

bench-query: build bench-data ## questions over that log beside jq and grep
	bash bench/query target/release/kaudit bench/data/audit.log

bench-store: bench-data ## ten questions to the store's files of that log, warm and cold, beside DuckDB (from PyPI)
	bash bench/store bench/data/audit.log

bench-gateway: ## the gateway beside nginx and haproxy, which have to be there, as wrk and h2load have
	bash bench/gateway

fuzz: ## every fuzz target for FUZZ_SECONDS (60) seconds
	bash fuzz/run $(FUZZ_SECONDS)

soak: ## an audit receiver that is down and fails in every way for SOAK_SECONDS (300), and what became of the events
	KAUDIT_SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --package kaudit --test e2e -- --nocapture after_an_outage

torture: ## the faults of docs/reliability.md at length, as root about an hour: kills, full disks, power cuts; prints a table
	bash .ci/torture $(TORTURE_SEEDS)

interop: ## the store's files read with DuckDB, and the store in a bucket of moto's S3 server (both from PyPI), against the real logs
	$(CARGO) build --package kaudit --bin kaudit --features s3
	bash interop/python interop/duckdb_reads.py "$${CARGO_TARGET_DIR:-target}/debug/kaudit" testdata/real/*.jsonl.zst
	bash interop/python interop/bucket.py "$${CARGO_TARGET_DIR:-target}/debug/kaudit" testdata/real/*.jsonl.zst
