# What people type every day. Each target sets up what it needs in .venv; nothing but Python 3.11 (or newer) and make is
# expected of the machine. Another Python: make PYTHON=python3.12 …

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test test-slurm lint types docs wheel check install clean

help:  ## show this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 14

demo: $(VENV)/.base  ## install, and run the whole loop on a shipped workload and site
	$(BIN)/hpcplan demo

test: $(VENV)/.test  ## run the tests that need no Slurm
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m "not slurm" $(ARGS)
	@echo "The tests on a real Slurm were left out: 'make test-slurm' runs them (as root on Debian)."

test-slurm: $(VENV)/.test  ## start a real Slurm on this machine, and run the tests that need it (as root on Debian)
	$(BIN)/python -m pytest -m slurm $(ARGS)

lint: $(VENV)/.test  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test  ## check types
	$(BIN)/mypy

docs: $(VENV)/.docs  ## build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --no-color -b html docs docs/_build/html

wheel: $(VENV)/.test  ## build the wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist . > $(VENV)/build.log || { cat $(VENV)/build.log; exit 1; }
	@ls dist/*.whl

check: lint types docs test  ## all of the above but the wheel and the real Slurm

install: $(VENV)/.base $(VENV)/.test $(VENV)/.docs  ## set up .venv for every target

clean:  ## remove .venv and everything built
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/_generated hpcplan-demo* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp file says when a part of .venv was last set up; setup.cfg, which names what to install, makes it old.

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "hpcplan needs Python 3.11 or newer, and '$(PYTHON)' is not; say which: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Setting up $(VENV), which takes a minute or two …"
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.base: $(VENV)/.python setup.cfg pyproject.toml
	$(PIP) install --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) install --editable '.[docs]'
	@touch $@
