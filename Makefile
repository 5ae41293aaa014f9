# Every target makes the environment it needs, so each works on a clean clone.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
CODE := adaptive_sleep kernels streams policies experiments tests

.DELETE_ON_ERROR:
.PHONY: help env demo test test-slow test-services check lint types wheel bench format clean

help:
	@echo "make env        the environment, in $(VENV)"
	@echo "make demo       replay a bundled recording under four policies; writes a report"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take longer"
	@echo "make test-services  the tests of studies in PostgreSQL (installs Debian's server and the extra)"
	@echo "make check      lint, types, wheel and tests: what continuous integration runs"
	@echo "make lint       ruff; 'make format' mends what it can"
	@echo "make types      mypy --strict, on a freshly built wheel"
	@echo "make wheel      build the wheel and import it from outside the checkout"
	@echo "make bench      the kernels beside transformers (installs the extra bench)"
	@echo "make clean      remove builds and caches ($(VENV) stays)"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt kernels/native.c kernels/native_rule.h kernels/native_gradient.h kernels/native_rows.h kernels/native_attention.h kernels/native_look.h kernels/native_dense.h
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: env
	$(BIN)/adaptive-sleep demo

# Whole files go to one worker, so that what a file prepares is prepared once.
test: env
	$(PYTEST) --numprocesses $(WORKERS) --dist loadfile

test-slow: env
	$(PYTEST) -m slow --timeout 1800 || [ $$? -eq 5 ]  # 5: there is none

# The server comes from Debian's packages where it is missing, and runs on loopback for the tests alone.
test-services: env
	@ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || { apt-get update -q && apt-get install -qy --no-install-recommends postgresql; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[postgres]'
	$(PYTEST) -m services --timeout 1800

check: lint types wheel test

lint: env
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

format: env
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

# The folders are mapped into one package, which mypy sees only once it is built.
# build/ goes first: setuptools would pack modules that no longer exist.
build/wheel: env FORCE
	@rm -rf build && mkdir -p $@
	$(BIN)/python -m build --wheel --no-isolation --outdir $@ . > build/log.txt 2>&1 || { cat build/log.txt; exit 1; }
	@mkdir build/types && $(BIN)/python -m zipfile -e $@/*.whl build/types

types: build/wheel
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache adaptive_sleep

wheel: build/wheel
	@set -eu; site=$$(mktemp -d); trap 'rm -rf "$$site"' EXIT; \
	$(BIN)/python -m pip install --quiet --no-deps --target "$$site" build/wheel/*.whl; \
	root=$$PWD; cd "$$site"; export PYTHONPATH="$$site"; \
	"$$root"/$(BIN)/python -P -c 'import adaptive_sleep, os, sys; \
	sys.exit(None if adaptive_sleep.__file__.startswith(os.getcwd()) else adaptive_sleep.__file__)'; \
	bin/adaptive-sleep --help > /dev/null; \
	echo "the wheel installs, imports and runs outside the checkout"

bench: env
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/adaptive-sleep bench kernels

clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: FORCE
FORCE:
