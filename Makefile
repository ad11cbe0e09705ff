PYTHON ?= python3
PYTEST := .venv/bin/python -m pytest
# a worker a core, each on one thread; a file's tests stay together, as they share what it has trained
FAST := OMP_NUM_THREADS=1 $(PYTEST) -m "not processes and not deployed" --numprocesses auto --dist loadfile
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# one thread: `make bench` compares programs, not how well they share two cores; BENCH="W1 text" for some
BENCH ?=

.PHONY: bench demo reproduce test test-processes test-deployed test-nightly lint build clean

demo: .venv/.runtime
	.venv/bin/localgd demo

reproduce: .venv/.runtime
	mkdir -p runs
	.venv/bin/localgd reproduce --out runs/reproduce

bench: .venv/.dev
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 .venv/bin/python benchmarks/bench.py $(BENCH) --out runs/bench

test: lint
	$(FAST)

test-processes: .venv/.dev
	$(PYTEST) -m processes

test-deployed: .venv/.dev
	$(PYTEST) -m deployed

test-nightly: .venv/.dev
	LOCALGD_TESTS=nightly $(FAST) --timeout 6000
	.venv/bin/python benchmarks/peers/run.py

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

build: .venv/.dev
	rm -rf dist
	.venv/bin/python -m build
	.ci/installed dist/*.whl

.venv/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/.dev: .venv/.runtime
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
