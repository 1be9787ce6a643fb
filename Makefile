# Needs Python 3.11 or later, make and a package index, nothing else; uv is used when it is on the PATH.
# Everything is made inside the checkout: .venv (the environment), .sandbox, .demo, .cache.

.DEFAULT_GOAL := help
.NOTPARALLEL:
# Compiled modules are kept from the first start on; without them each command starts three times slower.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test check lint types layers coverage soak bench screenshots names lock clean

VENV := .venv
BIN := $(VENV)/bin
UV ?= $(shell command -v uv 2>/dev/null)
IS_RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(IS_RECENT)' >/dev/null 2>&1 && echo $$python && break; done)

PIP_QUIETLY := --quiet --no-input --disable-pip-version-check --no-compile
# $(call install,ARGUMENTS) takes pip where there is no uv, or where uv cannot reach the index that pip can.
install = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python $(1) ||) { \
	{ $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; } && \
	$(BIN)/python -m pip install $(PIP_QUIETLY) $(1); }

# On two processors more than two: many tests wait.
WORKERS ?= 4

# The environment of development can run the service too.
RUN_ENVIRONMENT := $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.run)

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(RUN_ENVIRONMENT) ## Deliver into a local AWS and explain each step (KEEP=1 leaves it up, with its page)
	@$(BIN)/xmode-transfer demo $(if $(KEEP),--keep) $(ARGS)

# What is long begins first, and a process that has nothing left takes over from another.
SPREAD := -n $(WORKERS) --dist worksteal
PYTEST := $(BIN)/pytest $(SPREAD)

test: $(VENV)/.dev ## Run the tests that one waits for (ARGS="-k name" chooses, WORKERS=0: in one process)
	$(PYTEST) -m "not thorough" $(ARGS)

# The types are checked beside the tests, of which many wait.
check: lint layers ## Run everything that continuous integration runs (ARGS and WORKERS as with test)
	@mkdir -p .cache
	@$(BIN)/mypy >.cache/types 2>&1 & types=$$!; \
		echo "$(PYTEST) $(ARGS)"; $(PYTEST) $(ARGS); tests=$$?; \
		wait $$types || { cat .cache/types; exit 1; }; exit $$tests

lint: $(VENV)/.dev ## Look for mistakes and for text that is not formatted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## Check the types
	$(BIN)/mypy

layers: $(VENV)/.dev ## Check that each layer imports only the layers below it
	$(BIN)/lint-imports --no-cache --no-logo

# As `make check` runs the tests, with every process that they start. A failure does not hide the figure.
coverage: export COVERAGE_FILE := $(CURDIR)/.cache/coverage/data
coverage: $(VENV)/.dev ## Measure which lines of the package the tests run (ARGS and WORKERS as with test)
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(BIN)/coverage run -m pytest $(SPREAD) $(ARGS); tests=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report; exit $$tests

soak: $(VENV)/.dev ## Run the long forms of the tests
	XMODE_SOAK=1 $(BIN)/pytest -m slow $(ARGS)

bench: $(RUN_ENVIRONMENT) ## Measure against the peers; wants nginx (ARGS="--sets small", --all, --table)
	$(BIN)/python benchmarks/run.py $(ARGS)

screenshots: $(VENV)/.dev ## Take the README's pictures anew from the demo; wants chromium
	@$(BIN)/python tests/browser/screenshots.py

names: $(VENV)/.dev ## Renew the names of AWS's actions and condition keys that `policy lint` knows
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python tests/iam_data.py

# The development set is resolved first and holds every pin; the others repeat its choice.
# A release counts once it is a week old: most poisoned ones are found and withdrawn by then.
COMPILE = "$(LOCK_UV)" pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	--exclude-newer '1 week' $(if $(UPGRADE),--upgrade)
lock: LOCK_UV = $(or $(UV),$(CURDIR)/.cache/uv/bin/uv)
lock: $(if $(UV),,.cache/uv/bin/uv) ## Pin what pyproject.toml asks for, with hashes (UPGRADE=1 takes the newest)
	$(COMPILE) --all-extras --group build --group dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) --all-extras -c requirements/dev.txt pyproject.toml -o requirements/run.txt
	$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt
	cd xmode_transfer/sandbox && $(COMPILE) --no-annotate requirements.in -o requirements.txt
	cd benchmarks && $(COMPILE) --no-annotate requirements.in -o requirements.txt

clean: ## Remove what was made here, except the ledger in var/
	@if [ -x $(BIN)/xmode-transfer ] && [ -e .demo ]; then $(BIN)/xmode-transfer demo --stop; fi
	@if [ -x $(BIN)/xmode-transfer ] && [ -e .sandbox ]; then $(BIN)/xmode-transfer sandbox stop --all; fi
	rm -rf $(VENV) .venv-* .sandbox .demo .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
		.grimp_cache build dist

.cache/uv/bin/uv:
	@$(NEED_PYTHON)
	"$(PYTHON)" -m venv .cache/uv
	.cache/uv/bin/python -m pip install $(PIP_QUIETLY) uv

# Missing, or a link to a Python that has gone: made anew.
$(BIN)/python:
	@$(NEED_PYTHON)
	@rm -rf $(VENV)
	@$(if $(UV),$(UV) venv --quiet --python "$(PYTHON)","$(PYTHON)" -m venv) $(VENV)

$(VENV)/.run: requirements/run.txt requirements/build.txt pyproject.toml $(BIN)/python
	@echo "Installing xmode-transfer into $(VENV) (once) ..."
	@$(call install,--require-hashes -r requirements/run.txt -r requirements/build.txt)
	@$(call install,--no-build-isolation --no-deps -e .)
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(BIN)/python
	@echo "Installing xmode-transfer and its development tools into $(VENV) (once) ..."
	@$(call install,--require-hashes -r requirements/dev.txt)
	@$(call install,--no-build-isolation --no-deps -e .)
	@touch $@

NEED_PYTHON = $(if $(PYTHON),"$(PYTHON)" -c '$(IS_RECENT)',false) || { \
	echo 'xmode-transfer needs Python 3.11 or later$(if $(PYTHON), and $(PYTHON) is not,: no python3 on the PATH is).' >&2; \
	echo 'Install one, or say where it is: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3' >&2; exit 1; }
