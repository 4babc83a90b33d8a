# Everything a newcomer types. `make setup` runs by itself and is quick once it is done.
SHELL := /bin/bash
BIN := .venv/bin

.PHONY: demo arm-demo test test-fast test-all lint bench docs setup clean

demo: setup
	$(BIN)/wm demo

arm-demo: setup
	$(BIN)/wm arm demo

# Two processes, each with ROS domains of its own (tests/domains.py): half of the tests wait. Each
# begins with half of the tests, file by file; the one that is done first takes over the other's.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test: setup
	$(PYTEST) -m "not slow"

test-fast: setup
	$(PYTEST) -m "not slow and not processes" --ignore tests/system --ignore tests/bench

test-all: setup
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:models:datasets $(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_words.py

bench: setup
	$(BIN)/wm bench

# The site lands in site/; site/index.html opens from the disk.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

setup:
	@bash scripts/setup.sh

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
