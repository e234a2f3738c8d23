# Every target does its own set-up: a .venv, then the dependencies, once. `make help` lists them.

VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install
# uv is several times as fast as pip. It does not read pip's configuration: if it fails, pip tries.
UV     := $(shell command -v uv 2>/dev/null)
# Overridden as in `make ladder PYTHON=/opt/python3.12/bin/python3`.
PYTHON ?=

# Tests start many processes: with bytecode kept, they need not compile the modules again.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install ladder history assistant test test-all lint format bench scaling-table clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed-report  ## install isoflop and its report into .venv, no more
	@echo "==> Installed; try $(BIN)/isoflop --help"

ladder: $(VENV)/installed-report  ## train the quickstart ladder and write its scaling-law report
	@echo "==> Training the ladder of configs/quickstart.py into runs/quickstart (4 to 8 minutes on 2 cores)"
	@$(BIN)/isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart

LADDERS := decoder lstm gru elman
history: $(VENV)/installed-report  ## ladders of n-grams, recurrent networks and decoders, on one curve
	@echo "==> Training the ladders of configs/history.py into runs/history (20 to 40 minutes on 2 cores)"
	@for family in $(LADDERS) ngram; do \
	  $(BIN)/isoflop sweep --config=configs/history.py:$$family --workdir=runs/history/$$family || exit; \
	done
	@$(BIN)/isoflop compare $(LADDERS:%=runs/history/%) runs/history/ngram --positions --out=runs/history/report

PHASES := base sft reward dpo ppo grpo
assistant: $(VENV)/installed-report  ## SFT, a reward model, DPO, PPO and GRPO of a small model, on a page
	@echo "==> Training the phases of configs/post/assistant.py into runs/assistant (5 to 15 minutes on 2 cores)"
	@for phase in $(PHASES); do \
	  $(BIN)/isoflop train --config=configs/post/assistant.py:$$phase --workdir=runs/assistant/$$phase || exit; \
	done
	@$(BIN)/isoflop phases $(patsubst %,runs/assistant/%,$(filter-out reward,$(PHASES))) --out=runs/assistant/report
	@echo "talk with it: $(BIN)/isoflop chat --run=runs/assistant/grpo"

test: $(VENV)/installed-dev  ## the fast tests (about 8 minutes on 2 cores)
	@echo "==> Running the fast tests"
	@$(PYTEST) -m 'not slow' -n auto --dist loadfile

test-all: $(VENV)/installed-dev  ## every test, the slow ones too
	@echo "==> Running every test"
	@$(PYTEST)

lint: $(VENV)/installed-dev  ## check formatting and style with ruff
	@echo "==> Checking formatting and style"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

format: $(VENV)/installed-dev  ## let ruff rewrite what `make lint` would refuse
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/installed-dev  ## measure training speed against peers, the loader, checkpoints
	@echo "==> Measuring training speed"
	@$(BIN)/python -m tests.bench

scaling-table: $(VENV)/installed-dev  ## compile what docs/scaling-up.md has in its tables, anew
	@echo "==> Compiling the configurations of configs/compiled.py for TPUs (a minute or two each)"
	@rm -f docs/scaling-up/*.json
	@$(BIN)/isoflop compile --table=docs/scaling-up.md

clean:  ## remove the .venv; runs/ and cache/ stay
	rm -rf $(VENV)

# One stamp an extra. A stamp is older than setup.py when the dependencies have changed.
$(VENV)/installed-%: setup.py | $(BIN)/python
	@echo "==> Installing isoflop[$*] and what it needs into $(VENV) (once; some minutes)"
	@$(if $(UV),$(UV) pip install --python $(BIN)/python --editable '.[$*]' ||) \
	  $(PIP) --editable '.[$*]'
	@touch $@

# A name that is on the path may still be a launcher without a Python behind it: each is tried.
$(BIN)/python:
	@for python in $(PYTHON) $(if $(PYTHON),,python3.12 python3.11 python3.13 python3.14 python3 python); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "==> Creating $(VENV) with $$($$python --version) ($$python)"; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "isoflop needs Python 3.11 or newer with venv; $(if $(PYTHON),PYTHON=$(PYTHON) is not,none was found by name)." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3.11-venv; macOS: brew install python@3.12)" >&2; \
	echo "or name one: make $(or $(MAKECMDGOALS),ladder) PYTHON=/path/to/python3.11" >&2; \
	exit 1
