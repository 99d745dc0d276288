# For root on Debian or Ubuntu, with Python 3.11 or newer and, for what runs containers, Go 1.26.3 or newer.
# Each target sets up what it needs and is quick about what is there already. SECCOMP_FLOOR_CACHE says where built
# programs are kept (default: ~/.cache/seccomp-floor).

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
export PYTHONPATH := tests

.PHONY: help demo test test-quick test-kubernetes bench lint setup lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: .venv/installed  ## the doors of real containers, before and after: nothing of the host is touched
	@$(BIN)/python -m testnode
	@$(BIN)/python -m demo

test: setup lint  ## everything but Kubernetes: unit and property tests, real containers
	@$(PYTEST) -m "not kubernetes"

test-quick: .venv/installed lint  ## what needs neither root nor containers, in seconds
	@$(PYTEST) tests/unit tests/property tests/wire

test-kubernetes: setup  ## a whole Kubernetes from its Go modules, and the floor in it
	@$(BIN)/python -m testcluster
	@$(PYTEST) tests/kubernetes -m kubernetes

bench: setup  ## figures: what the floor costs
	@$(PYTEST) tests/bench --override-ini 'python_files=bench_*.py' --capture=no --timeout 0

lint: .venv/installed  ## ruff and mypy
	@echo "==> ruff, mypy" >&2
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary

setup: .venv/installed  ## Debian packages, containerd, runc and other runtimes; from then on only looked for
	@$(BIN)/python -m testnode --all
	@$(BIN)/python -m runtime.debian
	@$(BIN)/python -m libseccomps

# `sys.executable`, because python3 may be a version manager's shim, which costs tenths of a second at every start.
.venv/installed: requirements/test.lock pyproject.toml hatch_build.py $(wildcard proto/*.proto) plugin/launcher/seccomp-floor-runc
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo "==> virtual environment in .venv" >&2
	@test -x $(BIN)/python -a -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes python3-venv; }
	@test -x $(BIN)/python -a -x $(BIN)/pip || "$$($(PYTHON) -c 'import sys; print(sys.executable)')" -m venv .venv
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements/test.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

PIP_COMPILE := .venv-lock/bin/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header

lock:  ## pin the newest versions that pyproject.toml allows
	@$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet pip-tools
	@$(PIP_COMPILE) --upgrade --extra test --output-file requirements/test.lock pyproject.toml
	@$(PIP_COMPILE) --constraint requirements/test.lock --output-file requirements/run.lock pyproject.toml
	@rm -rf .venv-lock

clean:  ## remove what was made here; the cache of built programs stays
	rm -rf .venv .venv-lock build dist plugin/seccomp_floor/pb .mypy_cache .pytest_cache .ruff_cache .hypothesis
