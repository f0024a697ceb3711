# What can be done in a clone of sesguard; `make help` lists it.
#
# Needs Python 3.11 or later, make and bash. `make demo` and `make test` set up everything else by themselves: .venv
# with the packages that constraints/ pins, and, as root, the system packages of tools/system_packages.sh.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Passed on to the program that a target runs: make test ARGS='-k vault', make demo ARGS=--json
ARGS ?=
# The least branch coverage, in per cent, of a run with all tests and all programs.
export COVERAGE_FLOOR ?= 95

BIN := .venv/bin
STEP := tools/step.sh

.PHONY: help demo test lint types layers bench soak fuzz messages check-messages docs-images constraints clean packages venv

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: packages ## The whole story on the embedded SES, under a minute, no AWS account
	@tools/venv.sh runtime
	@$(BIN)/sesguard demo $(ARGS)

test: packages venv lint types layers check-messages ## Lint, types, layers, then all tests with coverage
	@tools/pytest.sh $(ARGS)

lint: venv ## ruff on everything, and a docstring on every public thing
	@$(STEP) 'ruff check' $(BIN)/ruff check .
	@$(STEP) 'ruff format' $(BIN)/ruff format --check .
	@$(STEP) 'docstrings (interrogate)' $(BIN)/interrogate src

types: venv ## mypy, strict
	@$(STEP) 'types (mypy)' $(BIN)/mypy src tests tools bench

layers: venv ## The import rules of ARCHITECTURE.md
	@$(STEP) 'layers (import-linter)' $(BIN)/lint-imports --no-logo --no-cache

bench: packages venv ## Benchmarks, the relay beside its peers among them; nothing depends on their figures
	@set -e; for name in lookup response relay; do $(BIN)/python "bench/$$name.py" $(ARGS); done

soak: packages venv ## An hour of mixed load on the relay: memory and descriptors stay flat; ARGS='--minutes 5'
	@$(BIN)/python bench/soak.py $(ARGS)

fuzz: venv ## A million hostile inputs to the relay's parsers, some minutes; ARGS='--seed 2 --processes 2'
	@PYTHONPATH=src:tests $(BIN)/python tests/fuzz/fuzz_relay.py $(ARGS)

messages: venv ## Bring the Portuguese messages up to date and compile them
	@$(STEP) 'messages update' $(BIN)/python tools/messages.py update
	@$(STEP) 'messages compile' $(BIN)/python tools/messages.py compile

check-messages: venv ## Whether the Portuguese messages are complete
	@$(STEP) 'messages check' $(BIN)/python tools/messages.py check

docs-images: packages ## Draw the terminal pictures of the README anew
	@tools/venv.sh runtime
	@$(BIN)/python tools/terminal_picture.py docs/images/demo.svg --title 'sesguard demo' -- $(BIN)/sesguard demo

constraints: venv ## Resolve constraints/ for pyproject.toml; ARGS=--upgrade takes newer releases
	@tools/constraints.sh $(ARGS)

clean: ## Remove what the other targets made in this clone
	rm -rf .venv .cache build dist
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

packages: ## The system packages that the tests with real programs need
	@tools/system_packages.sh

venv: ## .venv, for working without the other targets
	@tools/venv.sh dev
