# Everything runs in .venv, which is made on first use. `make help` lists the targets.
#   make PYTHON=python3.12 test     another Python
#   make test ARGS="-k sparsemax"   more arguments for pytest

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# One stamp per PYTHON, so that asking for another one is noticed.
READY := $(VENV)/.ready-$(notdir $(PYTHON))
PIP := $(BIN)/python -m pip -qq --no-input --disable-pip-version-check install
PINS := $(VENV)/constraints.txt

# $(call apt,packages): install Debian packages if that needs nobody's permission.
apt = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "Installing $(1) with apt-get" \
	&& apt-get -qq update >/dev/null \
	&& DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $(1) >/dev/null; }

.DEFAULT_GOAL := help
.PHONY: help install dot demo test lint format docs clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: $(READY) ## make .venv with trinas and all tools

$(READY): pyproject.toml constraints.txt trinas/_core/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "trinas needs Python 3.11 or newer; try: make PYTHON=python3.12 install"; exit 1; }
	@wanted=$$($(PYTHON) -c 'import sys; print(sys.version_info[:2])'); \
	if [ "$$($(BIN)/python -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)" != "$$wanted" ] \
		|| ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Making $(VENV)"; \
		$(PYTHON) -m venv --clear $(VENV) >/dev/null \
			|| { $(call apt,python3-venv) && $(PYTHON) -m venv --clear $(VENV); } \
			|| { echo "$(PYTHON) -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }; \
	fi
	@echo "Installing PyTorch, then trinas and its tools (minutes, the first time)"
	@cp constraints.txt $(PINS)
# PyTorch comes first and by its pin: for a range pip may look through, or take, builds for
# accelerators of several gigabytes.
	@$(PIP) -c $(PINS) torch || { \
		echo "The pinned PyTorch is not to be had here: taking any that trinas supports."; \
		grep -v '^torch==' constraints.txt >$(PINS); }
	@$(PIP) -c $(PINS) hatchling editables
	@$(PIP) -c $(PINS) --no-build-isolation -e '.[dev]'
	@touch $@

dot:
	@command -v dot >/dev/null || $(call apt,graphviz) \
		|| echo "No Graphviz, so pictures stay DOT text; on Debian: apt-get install graphviz"

demo: $(READY) dot ## search, derive and train a small super-resolution network; see runs/demo
	@$(BIN)/python examples/sr_trilevel/run.py demo --out runs/demo

# A worker per core with one thread each is faster than threads inside small tensor operations.
test: $(READY) dot ## run the tests
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q \
		-n auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(READY) ## style, formatting, layers and types
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --check . || { echo "Not formatted: run make format"; exit 1; }
	@$(BIN)/lint-imports --no-cache
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

format: $(READY) ## format the code and apply safe fixes
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

# Not with --quiet: it hides warnings from --strict, too.
docs: $(VENV)/.docs ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html"

$(VENV)/.docs: $(READY)
	@echo "Installing what the documentation needs"
	@$(PIP) -c $(PINS) --no-build-isolation -e '.[docs]'
	@touch $@

clean: ## remove caches and built files (not .venv, not runs)
	@rm -rf dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	@rm -rf $(VENV)
