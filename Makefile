# `make quickstart` and `make test` do all the set-up; nothing is installed outside $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart install test slow lint format types bench clean

quickstart: $(STAMP)
	$(BIN)/orchestrate index +scenario=low_latency
	$(BIN)/orchestrate +scenario=low_latency

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The source tree holds the package in three folders; mypy reads it as it is installed.
types: $(STAMP)
	rm -rf build/types
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	MYPYPATH=build/types $(BIN)/mypy --package orchestrator

bench: $(STAMP)
	$(BIN)/python benchmarks/runner.py
	$(BIN)/python benchmarks/cold_start.py
	$(BIN)/python benchmarks/cache.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
