# `make demo` and `make test` are all a newcomer needs; each installs what it uses, once.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV ?= uv
LOCK := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --quiet
SOURCES := .
# Much of the suite waits for servers: four processes keep two cores busy, longest files first.
PYTEST_ARGS ?= -n 4 --dist loadfile --no-loadscope-reorder
SYSTEM_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder tests/chaos tests/local \
	tests/api/test_whole_*.py tests/contract/test_contract.py tests/test_worker.py
FUZZ_EXAMPLES ?= 100

# A stack is half a dozen processes: where none may keep what it compiles, each compiles all of it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help node-packages install install-dev demo up test system check bench browser client fuzz lock

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install into .venv

install-dev: $(VENV)/.installed-dev ## Install into .venv with what tests and checks need

demo: install ## Run a backtest and watch it
	$(BIN)/alphalab demo

up: install ## Run the whole stack until Ctrl-C
	$(BIN)/alphalab up

test: install-dev node-packages ## Run the tests on real PostgreSQL, Redis and Temporal, but those of whole stacks
	$(BIN)/python -m pytest -m "not system" $(PYTEST_ARGS)

system: install-dev ## Run whole stacks as users do, and kill what runs in them
	$(BIN)/python -m pytest -m system $(SYSTEM_ARGS)

check: install-dev ## Format, lint, types, layers
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

bench: install-dev ## Measure, and print the table of docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

client: install-dev ## Write the documents of the API and the TypeScript client anew, and check it
	$(BIN)/python -m api.openapi docs/openapi.json
	$(BIN)/python -m api.asyncapi docs/asyncapi.json
	cd clients/typescript && npm ci && npm run generate && npm run check && npm run validate

browser: ## Install what tests look at the public pages with, beside a chromium on PATH
	cd tests/browser && npm ci

fuzz: install-dev ## Try each operation of the API with a hundred invented requests
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/contract/test_fuzzing.py -s --timeout 0

lock: ## Resolve the dependencies anew: make lock [UPGRADE=--upgrade] [UV=path]
	$(LOCK) $(UPGRADE) --group dev -o requirements-dev.lock
	$(LOCK) --group embedded --group build -c requirements-dev.lock -o requirements.lock
	$(LOCK) -c requirements-dev.lock -o requirements-production.lock

# What checks the client's types and looks at the public page; where npm cannot bring it, the tests
# that need it are skipped and say so.
node-packages: clients/typescript/node_modules tests/browser/node_modules

%/node_modules: %/package-lock.json
	@cd $* && npm ci --no-audit --no-fund --silent --fetch-retries 0 --fetch-timeout 20000 \
		|| echo "$*: npm brought nothing, so what needs it is skipped"

# The project itself is installed as a link to this directory: `alphalab` runs what is here.
$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/bin/python:
	@sh local/create_venv.sh $(VENV)
