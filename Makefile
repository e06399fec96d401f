PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
RUN_MIN := $(VENV)-min/bin/python
DEMO ?= runs/demo
BENCHMARKS ?= runs/benchmarks
PYTEST := -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# names of the test files that `make check` runs, or beginnings of them: those that train no network and start few commands
FAST_TESTS := anchored_model anchoring atomic_files augmentation bad_arguments bayesopt calibration config conformal detection \
	environment help loading losses mesh metrics optimizer plots preprocessing project published_corruptions scaling \
	selective sources uncertainty weight_files weight_networks

.PHONY: help demo check test lint test-newest test-min bench docs dist clean

help:  ## print the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed  ## set up, train on digits with masking, evaluate, print where the report is
	$(RUN) train.py --config configs/digits.py --workdir $(DEMO)
	$(RUN) eval.py --workdir $(DEMO) --suites clean,ood --num_references 1,10

check: lint  ## linters and the fast tests: run it before every commit
	$(RUN) $(PYTEST) $(wildcard $(FAST_TESTS:%=tests/test_%*.py))

test: lint test-newest test-min  ## everything that CI runs: linters, and all tests on the newest and the oldest versions

lint: $(VENV)/.installed-test  ## ruff, pyright and the layers of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)
	$(VENV)/bin/lint-imports

test-newest: $(VENV)/.installed-test  ## all tests, with the newest versions of the dependencies
	$(RUN) $(PYTEST)

test-min: $(VENV)-min/.installed  ## the tests marked min_versions, with the oldest supported versions
	$(RUN_MIN) $(PYTEST) -m min_versions

bench: $(VENV)/.installed-bench  ## run all benchmarks; OFFICIAL=a clone of LLNL/anchoring, to time the released code as well
	$(RUN) -m benchmarks.speed.train --json $(BENCHMARKS)/train.json $(if $(OFFICIAL),--official $(OFFICIAL))
	$(RUN) -m benchmarks.speed.inference --json $(BENCHMARKS)/inference.json $(if $(OFFICIAL),--official $(OFFICIAL))
	$(RUN) -m benchmarks.speed.models --json $(BENCHMARKS)/models.json
	$(RUN) -m benchmarks.fidelity.parity --json $(BENCHMARKS)/parity.json
	$(RUN) -m benchmarks.speed.startup --json $(BENCHMARKS)/startup.json
	$(RUN) -m benchmarks.speed.seeds --json $(BENCHMARKS)/seeds.json
	$(RUN) -m benchmarks.speed.input --json $(BENCHMARKS)/input.json
	$(RUN) -m benchmarks.speed.augmentation --json $(BENCHMARKS)/augmentation.json
	$(RUN) -m benchmarks.speed.corruptions --json $(BENCHMARKS)/corruptions.json
	$(RUN) -m benchmarks.regression.regression --json $(BENCHMARKS)/regression.json
	$(RUN) -m benchmarks.regression.risk --json $(BENCHMARKS)/risk.json
	$(RUN) -m benchmarks.regression.bayesopt --json $(BENCHMARKS)/bayesopt.json

docs: $(VENV)/.installed-docs  ## build the documentation into site/; warnings are errors
	$(VENV)/bin/sphinx-build --fail-on-warning --keep-going --quiet docs site

dist: $(VENV)/.installed-test  ## build wheel and source distribution into dist/, and try the wheel in a new environment
	rm -rf dist $(VENV)-dist
	$(RUN) -m build --outdir dist
	$(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/python -m pip install --quiet dist/*.whl
	$(VENV)-dist/bin/python -m pip check
	cd dist && $(abspath $(VENV)-dist)/bin/python -c 'import anchor_jax as aj, anchor_jax.export; print(aj.__version__, aj.__file__)'
	cd dist && $(abspath $(VENV)-dist)/bin/anchor-jax train --help

clean:  ## remove the virtual environments; runs are kept
	rm -rf $(VENV) $(VENV)-min $(VENV)-dist

$(VENV)/.installed: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is required; %s is %s. Try make PYTHON=python3.13" % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable '.[bench]'
	touch $@

# the oldest supported versions, without the libraries that other tests compare against
$(VENV)-min/.installed: pyproject.toml setup.py tests/min_versions.txt
	$(PYTHON) -m venv $(VENV)-min
	$(RUN_MIN) -m pip install --quiet --constraint tests/min_versions.txt --editable . hypothesis pytest pytest-xdist
	touch $@
