# Set-up, quick start, tests. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The interpreter that .venv is made from (3.10, 3.11 or 3.12); unused once .venv exists.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-complete
LOG := $(VENV)/setup.log
CONSTRAINTS := $(VENV)/constraints.txt

# What the environment is made from; a change of any of them makes `make setup` run again.
INPUTS := setup.py pyproject.toml constraints.txt tools/install_detectron2.py \
	tools/detectron2_wheel.py $(wildcard tools/detectron2_additions/*.py) \
	tools/check_environment.py

# Of pip's output: large downloads, the final installation, and everything from an error on.
SHOW_PROGRESS := sed -unE -e '/^ERROR|error:/,$$p' \
	-e 's/^ +(Downloading [^ ]+) (\([0-9]{2,}\.[0-9] [MG]B\))/    \1 \2/p' \
	-e 's/^(Installing collected packages):.*/    \1/p'

.PHONY: help setup quickstart test lint clean clean-all

help:
	@echo "make setup       environment in $(VENV): requirements, detectron2, this package"
	@echo "make quickstart  set up, make a small synthetic data set, train, evaluate, report"
	@echo "make test        set up and run the tests  (PYTEST_ARGS='-k name' selects)"
	@echo "make lint        set up and run ruff and mypy"
	@echo "make clean       remove build outputs and caches"
	@echo "make clean-all   also remove $(VENV), data/ and output/"
	@echo "PYTHON=python3.11 chooses the interpreter (3.10 to 3.12)."

setup: $(STAMP)

$(STAMP): $(INPUTS)
	@if ! [ -x $(BIN)/python ]; then \
	  $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 13) \
	    else "error: Python %d.%d is not supported, 3.10 to 3.12 are; try PYTHON=python3.11" % v)'; \
	  echo "[setup] making $(VENV) with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: '$(PYTHON) -m venv' failed (Debian and Ubuntu: install python3-venv)"; exit 1; }; \
	fi
	@# A torch that is there already stays: it may have been chosen for this machine's driver.
	@if $(BIN)/python -m pip show --quiet torch 2> $(LOG); then \
	  echo "[setup] keeping the torch in $(VENV)"; \
	  sed -E '/^torch(vision)?==/d' constraints.txt > $(CONSTRAINTS); \
	else cp constraints.txt $(CONSTRAINTS); fi
	@echo "[setup] installing the requirements and this package (pip's log: $(LOG))"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	  --constraint $(CONSTRAINTS) --editable '.[dev,tracking,video,rerun,export]' 2>&1 \
	  | tee $(LOG) | $(SHOW_PROGRESS)
	@echo "[setup] detectron2"
	@$(BIN)/python tools/install_detectron2.py
	@$(BIN)/python tools/check_environment.py --repair
	@touch $@

quickstart: setup
	@$(BIN)/python tools/quickstart.py

test: setup
	@$(BIN)/python -m pytest -q --durations=10 $(PYTEST_ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	@rm -rf build dist projects/*/*.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean
	@rm -rf $(VENV) data output
