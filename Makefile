# Everything a developer or CI runs. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements/dev.lock pyproject.toml hatch_build.py $(shell find proto -name '*.proto')
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: venv
venv: $(VENV)/.ready ## make .venv with the locked dependencies and the generated stubs

.PHONY: lint
lint: venv ## ruff, mypy --strict, and the import contracts of the rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: unit
unit: venv ## pure code, no root (30 s)
	$(BIN)/pytest tests/unit

.PHONY: clean
clean: ## remove what was built in the tree
	rm -rf $(VENV) ullage/pb build dist test-results .mypy_cache .ruff_cache .pytest_cache .hypothesis
