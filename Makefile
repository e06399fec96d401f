PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
DEMO ?= runs/demo

.PHONY: demo test lint clean help

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

demo: $(VENV)/.installed  ## set up, train on digits with masking, evaluate, say where the plots are
	$(RUN) train.py --config configs/digits.py --workdir $(DEMO)
	$(RUN) eval.py --workdir $(DEMO) --suites clean --num_references 1,10

test: lint  ## set up, then all that CI runs: linter, type checker, import layers, tests
	$(RUN) -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)
	$(VENV)/bin/lint-imports

clean:  ## remove the virtual environment; runs are kept
	rm -rf $(VENV)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, this is %s; try make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable '.[test]'
	touch $@
