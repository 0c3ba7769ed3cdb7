# Needs only Python >= 3.11 and make. Every target sets up what it needs in .venv; a second run is quiet.
#
#   make demo         the story: a worker is killed at order 500 of 1,000, and nothing is lost or done twice
#   make test         the whole suite, on real servers        PYTEST_ARGS="-k crash -x" goes to pytest
#   make check        format, lint, types
#   make bench        the measured table
#   make bench-peers  the same work on DBOS with Postgres, in .venv-peers; BENCH_ARGS="--quick --with-ours" goes to it
#   make lock         requirements.lock, LOCK_ARGS=--upgrade   docs: docs/settings.md anew
#   make clean        takes away what the others made
#
# PYTHON=python3.12 chooses the interpreter, VENV=… the folder of the virtual environment.

VENV ?= .venv
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$python" && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)-peers
PYTEST_ARGS ?=
BENCH_ARGS ?=
LOCK_ARGS ?=

.PHONY: demo test check bench bench-peers lock docs clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(BIN)/runtara demo

test: $(STAMP)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/python -m bench

bench-peers: $(STAMP) $(PEERS)/.installed
	@$(BIN)/python -m bench.peers --python $(PEERS)/bin/python $(BENCH_ARGS)

docs: $(STAMP)
	@$(BIN)/python docs/generate.py

# The locks hold for every supported Python and platform, and name no index and no path. The second is the platform's
# image's: what it needs of the first.
lock: $(STAMP)
	@$(PYTHON) -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url $(LOCK_ARGS) \
		--python-version 3.11 --all-extras --group test --custom-compile-command "make lock" \
		--output-file requirements.lock pyproject.toml
	@$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url $(LOCK_ARGS) \
		--python-version 3.11 --extra cli --extra engine --extra docker --extra kubernetes --constraint requirements.lock \
		--custom-compile-command "make lock" --output-file compose/requirements.lock pyproject.toml
	@rm -rf $(VENV)-lock

clean:
	rm -rf .venv* build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; name one with PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV) ($$($(BIN)/python --version))"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS)/.installed: bench/peers/requirements.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo "installing into $(PEERS)"
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r bench/peers/requirements.txt || { \
		echo "DBOS cannot be installed (see above), so it cannot be measured; make bench measures Runtara alone" >&2; exit 1; }
	@touch $@
