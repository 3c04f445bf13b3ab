# Two commands are all a fresh machine needs:
#   make run     installs the agent into .venv and shows what it finds on this host (as root it finds more)
#   make test    installs what the tests need and runs them
# uv is used where it is installed, else venv and pip.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?= --once
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null)
export UV_PROJECT_ENVIRONMENT := $(VENV)

.PHONY: run test lint system machine bench docs ci clean
.DEFAULT_GOAL := run

run: $(VENV)/.run
	$(BIN)/otel-hostmetrics $(ARGS)

test: $(VENV)/.dev
	$(BIN)/pytest -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Other programs are started: bpftool, prometheus, podman... (.ci/packages lists them)
system: $(VENV)/.dev
	$(BIN)/pytest -q -m "system and not machine"

# A real Linux kernel under QEMU
machine: $(VENV)/.dev
	$(BIN)/pytest -q -m machine

bench: $(VENV)/.dev
	$(BIN)/python -m tests.perf

# What is derived from the catalogue: METRICS.md, dashboards, the demo stack
docs: $(VENV)/.dev
	$(BIN)/python -m tests.documents
	$(BIN)/python -m dashboards.generate

ci:
	.ci/run

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.run: pyproject.toml uv.lock
ifdef UV
	uv sync --quiet --locked --inexact
else
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
endif
	@touch $@

$(VENV)/.dev: $(VENV)/.run
ifdef UV
	uv sync --quiet --locked --inexact --extra dev
else
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
endif
	@touch $@
