# Everything runs from .venv, which `make setup` builds from requirements.lock; the other targets call it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
READY := $(VENV)/.ready

# The newest interpreter that really starts and is new enough; `make PYTHON=/some/python` overrides it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
# Passed on to pytest (`make test ARGS=tests/router`) and to the demo.
ARGS ?=
SEEDS ?= 200
# Test files run side by side in so many processes.
JOBS ?= 2
KILLS ?= 20
# Whatever the shell says, compiled modules are kept: without them every process that a test starts compiles MLflow anew,
# which more than doubles the 3 s of a processor that it takes to import it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-compiled wheel kdev test-chart test-cluster check fmt gen sim error-rates kill-test \
	kill-leader fuzz soak table-changes bad-challengers shares bench-router bench-evidence bench-controller lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {name[++n] = $$1; said[n] = $$2; if (length($$1) > w) w = length($$1)} \
		END {for (i = 1; i <= n; i++) printf "  make %-*s  %s\n", w, name[i], said[i]}' $(MAKEFILE_LIST)

setup: $(READY) ## Build .venv with everything that the other targets need

demo: $(READY) ## Three rollouts on real flights, watched live (about five minutes)
	@$(BIN)/understudy demo $(ARGS)

# What the tests have to build is built ahead of them, where it can say how far it is.
test: $(READY) ## Run the tests (ARGS=… goes to pytest; JOBS=0 for one process, which can be debugged)
	$(if $(ARGS),,@$(BIN)/python -m tests.kubernetes.binaries || true)
	$(if $(ARGS),,@$(BIN)/python -m tests.compiled || true)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-compiled: $(READY) ## The tests of the router on what a wheel has, where the path of a request is compiled
	@$(BIN)/python -m tests.compiled -m pytest -q -n $(JOBS) --dist loadfile $(or $(ARGS),tests/router --ignore tests/router/test_compiled.py)

wheel: $(READY) ## A wheel in dist/, the router compiled for this machine and this Python
	@UNDERSTUDY_COMPILE=1 $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

kdev: $(READY) ## Build the Kubernetes API server that the tests use, ahead of them (ARGS=--node: what runs pods too)
	@$(BIN)/python -m tests.kubernetes.binaries $(ARGS)

test-chart: $(READY) ## Build Helm once (five minutes of a processor) and run the tests of the chart
	@$(BIN)/python -m tests.kubernetes.helm >/dev/null
	@$(BIN)/python -m pytest -q tests/kubernetes/chart tests/kubernetes/operating/test_chart.py $(ARGS)

test-cluster: $(READY) ## A real node with real pods: from helm install to promotion and rollback under load (root only)
	@$(BIN)/python -m tests.cluster $(ARGS)

check: $(READY) ## Lint, formatting, types, import direction, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict controller router
	$(BIN)/lint-imports --no-logo
	$(BIN)/understudy schema --check

fmt: $(READY) ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gen: $(READY) ## Write the files that are generated from the spec
	$(BIN)/understudy schema

sim: $(READY) ## Simulated rollouts with faults (SEEDS=… how many)
	@$(BIN)/python -m tests.sim --seeds $(SEEDS)

error-rates: $(READY) ## Measure the error rates of the whole rule (RUNS=3000 replications of each scenario)
	@$(BIN)/python -m tests.error_rates --runs $(or $(RUNS),3000)

kill-test: $(READY) ## Kill every process of a run, KILLS=… times each, and check what is left (an hour)
	@$(BIN)/python -m tests.embedded.kill_test --kills $(KILLS) $(ARGS)

kill-leader: $(READY) ## Kill the operator that leads at 30 random points of rollouts on an API server (ten minutes; ARGS=--help)
	@$(BIN)/python -m tests.kubernetes.kill_leader $(ARGS)

fuzz: $(READY) ## Damaged messages: 10 million at the router's parser, 100,000 over sockets (ARGS=--help)
	@$(BIN)/python -m tests.compiled -m tests.router.fuzz $(ARGS)

soak: $(READY) ## A router under load, faults and changing tables (SECONDS=… how long, an hour)
	@$(BIN)/python -m tests.compiled -m tests.router.soak --seconds $(or $(SECONDS),3600) $(ARGS)

table-changes: $(READY) ## 1,000 changes of weight under load; prints how long a confirmation takes
	@$(BIN)/python -m tests.compiled -m tests.router.table_changes $(ARGS)

bad-challengers: $(READY) ## 20,000 requests each with a challenger that is killed, hangs, lies, drips …
	@$(BIN)/python -m tests.compiled -m tests.router.bad_challengers $(ARGS)

shares: $(READY) ## Who meets the challenger, for 100,000 users at 1, 5 and 25 %
	@$(BIN)/python -m tests.compiled -m tests.router.shares $(ARGS)

bench-router: $(READY) ## The router beside nginx, haproxy, Envoy, aiohttp and FastAPI (15 minutes; ARGS=--budget for its parts)
	@$(BIN)/python -m tests.bench_router $(ARGS)

bench-evidence: $(READY) ## How long one reading of all evidence takes: 20 metrics, ten segments, five epochs
	@$(BIN)/python -m tests.evidence.bench_evidence

bench-controller: $(READY) ## 10,000 idle and 500 active rollouts on one controller (half an hour; ARGS='--idle 50 --active 5')
	@$(BIN)/python -m tests.bench_controller $(ARGS)

lock: $(UV) ## Renew requirements.lock from pyproject.toml (ARGS=--upgrade to move the pins)
	@$(user_index); $(UV) pip compile pyproject.toml --all-extras --group dev --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
		--output-file requirements.lock $(ARGS)

clean: ## Remove caches and build products (neither .venv nor the state of a run)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find controller router tests -name __pycache__ -type d -prune -exec rm -rf {} +

# uv does not read pip's settings. Where somebody has told pip (and not uv) which index or certificate to use,
# uv gets the same; nothing is set otherwise.
define user_index
from_pip() { $(BIN)/python -m pip config get "global.$$1" 2>/dev/null || true; }; \
index="$${PIP_INDEX_URL:-$$(from_pip index-url)}"; \
if [ -n "$$index" ] && [ -z "$${UV_DEFAULT_INDEX:-}$${UV_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
cert="$${PIP_CERT:-$$(from_pip cert)}"; \
if [ -n "$$cert" ] && [ -z "$${SSL_CERT_FILE:-}" ]; then export SSL_CERT_FILE="$$cert"; fi
endef

$(UV):
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found: install one, or name it: make setup PYTHON=…" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) does not start or is older than 3.11." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv/ensurepip: install them (Debian: apt install python3-venv)." >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version) …"
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.7,<1'

$(READY): pyproject.toml requirements.lock | $(UV)
	@echo "Installing requirements.lock and the project into $(VENV) …"
	@$(user_index); $(UV) pip install --quiet --python $(BIN)/python -r requirements.lock; \
		HATCH_BUILD_NO_HOOKS=true $(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
