# Everything that a fresh clone needs is Python 3.11 or newer and make; the rest goes into .venv.
#
#   make demo        install, then run the main job on real input
#   make test        install the development tools, then run the tests     (make test ARGS="-k pool -x")
#   make test-tasks  those of one folder
#   make lint        ruff, mypy, import-linter
#   make doctest     the examples in the docstrings
#   make bench       install the peers, then measure side by side          (make bench ARGS="--help")
#   make bench-growth    does anything cost more than its number?
#   make bench-gil   how right the GIL-held share is
#   make bench-parallel  DataParallel beside the plain module and DDP
#   make bench-trace     what a span of a timeline costs
#   make bench-loader    the DataLoader beside torch's
#   make bench-sharing   programs that share one loader beside one each
#   make bench-training  a training step under every strategy, beside DDP, Fabric, accelerate
#   make bench-spawn     ts.spawn beside multiprocessing.Process
#   make regret      how much is lost by leaving the choice to Teamster    (make regret ARGS="--quick --only json")
#   make clean       remove caches and build products
#   make distclean   remove .venv too

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST = $(BIN)/python -m pytest
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints-dev.txt)
ARGS ?=

# The first Python that is new enough; make PYTHON=... overrides it.
PYTHON ?= $(firstword $(foreach python,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))

# The folders of the tests, those that take longest first: as many run at a time as there are cores, for most of what they
# do is to wait for processes. What is not named here comes last, so that no folder can be forgotten.
LONGEST := data train parallel spine tasks laws
FOLDERS := $(LONGEST) $(filter-out $(LONGEST) __pycache__,$(notdir $(patsubst %/,%,$(wildcard tests/*/))))

.PHONY: demo test test-top $(FOLDERS:%=test-%) lint doctest bench bench-growth bench-gil bench-loader bench-parallel bench-serving bench-sharing bench-spawn bench-trace bench-training regret clean distclean

demo: $(VENV)/.stamp-run
	$(BIN)/python -m examples.demo $(ARGS)

test: $(VENV)/.stamp-dev
ifeq ($(strip $(ARGS)),)
	@+$(MAKE) --no-print-directory --jobs=$$(nproc) --keep-going --output-sync=target $(FOLDERS:%=test-%) test-top
else
	$(PYTEST) $(ARGS)
endif

$(FOLDERS:%=test-%): test-%: $(VENV)/.stamp-dev
	$(PYTEST) tests/$*

test-top: $(VENV)/.stamp-dev
	$(PYTEST) tests/test_*.py

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

doctest: $(VENV)/.stamp-dev
	$(PYTEST) --doctest-modules src $(ARGS)

bench: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.map $(ARGS)

bench-growth: $(VENV)/.stamp-dev
	$(BIN)/python -m benchmarks.growth $(ARGS)

bench-gil: $(VENV)/.stamp-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.gil $(ARGS)

bench-parallel: $(VENV)/.stamp-dev
	$(BIN)/python -m benchmarks.data_parallel $(ARGS)

bench-loader: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.loader $(ARGS)

bench-serving: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.serving $(ARGS)

bench-sharing: $(VENV)/.stamp-dev
	$(BIN)/python -m benchmarks.sharing $(ARGS)

bench-spawn: $(VENV)/.stamp-dev
	$(BIN)/python -m benchmarks.spawn $(ARGS)

bench-trace: $(VENV)/.stamp-dev
	$(BIN)/python -m benchmarks.trace $(ARGS)

bench-training: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.training $(ARGS)

regret: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.regret $(ARGS)

# A stamp says what .venv holds; pip runs again when pyproject.toml or the pins are newer than it.

$(VENV)/.stamp-venv:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv pyproject.toml
	$(PIP) --editable .
	@touch $@

# torch goes first and by its exact pin, so that pip never gets to weigh other builds of it.
$(VENV)/.stamp-dev: $(VENV)/.stamp-venv pyproject.toml constraints-dev.txt
	$(PIP) '$(TORCH)'
	$(PIP) --constraint constraints-dev.txt --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-bench: $(VENV)/.stamp-venv pyproject.toml constraints-dev.txt
	$(PIP) --constraint constraints-dev.txt --editable '.[bench]'
	@touch $@ $(VENV)/.stamp-run

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)
