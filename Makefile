# `make help` lists the targets. Everything runs inside .venv, made from the pinned lock/dev.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench
COMPILED := build/compiled
PROTO_BIN := .venv-proto/bin
PROTO_READY := .venv-proto/.ready
GENERATED := client/meterhold/v1

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-fast conservation prove check lint types contracts proto proto-check format lock compiled test-compiled bench bench-growth examples clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): lock/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Meterhold needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=python3.12, say." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python cannot make virtual environments here: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lock/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(PROTO_READY): lock/proto.txt
	$(PYTHON) -m venv .venv-proto
	$(PROTO_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lock/proto.txt
	@touch $@

$(BENCH_READY): lock/bench.txt $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lock/bench.txt
	@touch $@

setup: $(READY) ## Make the virtual environment

demo: $(READY) ## Replay a real trace of LLM requests against a fresh service and check the books
	$(BIN)/meterhold-server demo

serve: $(READY) ## Serve gRPC on 127.0.0.1:7717 on an embedded PostgreSQL
	$(BIN)/meterhold-server serve

test: $(READY) ## Run all tests on a real PostgreSQL
	$(BIN)/python -m pytest

test-fast: $(READY) ## Run the tests that need no server process
	$(BIN)/python -m pytest -m "not slow"

conservation: $(READY) ## Let a naive second ledger follow 200 000 random operations, and compare
	METERHOLD_TEST_OPERATIONS=200000 $(BIN)/python -m pytest -s tests/robustness/test_conservation.py --durations=5

prove: $(READY) ## Prove it: simulation, chaos on real processes, fuzz, tenancy; under ten minutes
	PYTHONPATH=tests $(BIN)/python -m proving $(PROVE_OPTIONS)

check: lint types contracts proto-check examples test ## All that CI runs

examples: $(READY) $(PROTO_READY) ## Build and run the examples in every language whose tools are here, and compare
	PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" $(BIN)/python examples/run.py

lint: $(READY) ## Check style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY) ## Check types
	$(BIN)/mypy

contracts: $(READY) ## Check who imports whom
	$(BIN)/lint-imports --no-cache

proto: $(PROTO_READY) ## Regenerate client/meterhold/v1 from proto/
	rm -f $(GENERATED)/*_pb2*
	PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" python -m grpc_tools.protoc -Iproto --python_out=client --mypy_out=quiet:client proto/meterhold/v1/*.proto
	PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" python -m grpc_tools.protoc -Iproto --grpc_python_out=client --mypy_grpc_out=quiet:client proto/meterhold/v1/*_service.proto

$(COMPILED)/.ready: $(READY) hatch_build.py $(shell find client server -name '*.py')
	rm -rf $(COMPILED)
	HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target $(COMPILED) .
	@touch $@

compiled: $(COMPILED)/.ready ## Build the service with its hot path compiled; needs a C compiler

test-compiled: $(COMPILED)/.ready ## Test the compiled build: the rules, the storage, the lanes, the calls
	PYTHONPATH=$(CURDIR)/$(COMPILED) $(BIN)/python -m pytest tests/core tests/storage tests/batching tests/rpc tests/acceptance

C_COMPILER := $(shell command -v cc)

bench: $(BENCH_READY) $(if $(C_COMPILER),$(COMPILED)/.ready) ## Measure the service beside three baselines: a table, a plot, JSON
	$(BIN)/python -m benchmarks $(if $(C_COMPILER),--compiled $(COMPILED))

bench-growth: $(READY) ## Measure a ledger of 12 million entries beside a small one, and the sweeper
	$(BIN)/python -m benchmarks.growth

proto-check: $(PROTO_READY) ## Lint the protos and prove that the generated code is fresh
	$(PROTO_BIN)/buf lint
	$(PROTO_BIN)/buf format --diff --exit-code
	$(PROTO_BIN)/buf breaking --against proto/meterhold.v1.binpb
	@rm -rf build/proto && mkdir -p build/proto
	PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" python -m grpc_tools.protoc -Iproto --python_out=build/proto --mypy_out=quiet:build/proto proto/meterhold/v1/*.proto
	PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" python -m grpc_tools.protoc -Iproto --grpc_python_out=build/proto --mypy_grpc_out=quiet:build/proto proto/meterhold/v1/*_service.proto
	diff -r -x __init__.py -x __pycache__ build/proto/meterhold/v1 $(GENERATED) || { echo "Generated code is stale: make proto"; exit 1; }

format: $(READY) ## Format the sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Renew the lock files with the newest versions
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	cd $(CURDIR) && for job in "dev --extra server --extra embedded --extra cli --extra jwt --group dev" "server --extra server --extra jwt" "bench --group bench --constraint lock/dev.txt" "build --group build" "proto --group proto"; do set -- $$job; name=$$1; shift; \
	  .venv-lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --python-version 3.11 "$$@" $$(case $$name in dev|server) echo pyproject.toml;; esac) --output-file lock/$$name.txt; done
	rm -rf .venv-lock

clean: ## Remove what the targets made; ledgers of `make serve` stay
	rm -rf $(VENV) .venv-proto build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf examples/go/gen examples/typescript/gen examples/typescript/dist examples/typescript/node_modules examples/java/target
