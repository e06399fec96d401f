PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
DEMO ?= runs/demo
BENCHMARKS ?= runs/benchmarks
OLDEST := tests/test_backends.py tests/test_mesh.py tests/test_inference.py tests/test_sources.py tests/test_sources_npz.py \
	tests/test_sources_tfds.py tests/test_data_cache.py tests/test_export.py \
	tests/test_training.py::test_one_two_and_eight_devices_give_the_same_losses_and_parameters \
	tests/test_training.py::test_resumed_run_ends_in_the_same_bits \
	tests/test_training.py::test_saved_state_is_that_of_its_step_although_training_goes_on \
	tests/test_train_step.py::test_a_divided_state_makes_the_steps_of_a_replicated_one \
	tests/test_train_stream.py::test_train_stream_batches_are_crops_of_their_rows

.PHONY: demo test bench lint docs dist clean help

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

demo: $(VENV)/.installed  ## set up, train on digits with masking, evaluate, say where the plots are
	$(RUN) train.py --config configs/digits.py --workdir $(DEMO)
	$(RUN) eval.py --workdir $(DEMO) --suites clean,ood --num_references 1,10

test: lint $(VENV)-min/.installed  ## set up, then all that CI runs: linter, type checker, import layers, tests
	$(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(VENV)-min/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(OLDEST)

bench: $(VENV)/.installed-bench  ## time everything beside PyTorch; OFFICIAL=a clone of LLNL/anchoring, the released code
	$(RUN) benchmarks/train.py --json $(BENCHMARKS)/train.json $(if $(OFFICIAL),--official $(OFFICIAL))
	$(RUN) benchmarks/inference.py --json $(BENCHMARKS)/inference.json $(if $(OFFICIAL),--official $(OFFICIAL))
	$(RUN) benchmarks/models.py --json $(BENCHMARKS)/models.json
	$(RUN) benchmarks/parity.py --json $(BENCHMARKS)/parity.json
	$(RUN) benchmarks/startup.py --json $(BENCHMARKS)/startup.json
	$(RUN) benchmarks/seeds.py --json $(BENCHMARKS)/seeds.json
	$(RUN) benchmarks/input.py --json $(BENCHMARKS)/input.json
	$(RUN) benchmarks/augmentation.py --json $(BENCHMARKS)/augmentation.json
	$(RUN) benchmarks/corruptions.py --json $(BENCHMARKS)/corruptions.json
	$(RUN) benchmarks/regression.py --json $(BENCHMARKS)/regression.json
	$(RUN) benchmarks/risk.py --json $(BENCHMARKS)/risk.json
	$(RUN) benchmarks/optimisation.py --json $(BENCHMARKS)/optimisation.json

docs: $(VENV)/.installed-docs  ## the pages as a site, in site/; a warning is an error
	$(VENV)/bin/sphinx-build --fail-on-warning --keep-going --quiet docs site

dist: $(VENV)/.installed-test  ## wheel and source distribution, in dist/; tries the wheel in an environment of its own
	rm -rf dist $(VENV)-dist
	$(RUN) -m build --outdir dist
	$(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/python -m pip install --quiet dist/*.whl
	$(VENV)-dist/bin/python -m pip check
	cd dist && $(abspath $(VENV)-dist)/bin/python -c 'import anchor_jax as aj, anchor_jax.export; print(aj.__version__, aj.__file__)'

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)
	$(VENV)/bin/lint-imports

clean:  ## remove the virtual environments; runs are kept
	rm -rf $(VENV) $(VENV)-min $(VENV)-dist

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, this is %s; try make PYTHON=python3.12" % sys.version.split()[0])'
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

# the oldest versions that are allowed, without the libraries that the tests compare against
$(VENV)-min/.installed: pyproject.toml tests/min_versions.txt
	$(PYTHON) -m venv $(VENV)-min
	$(VENV)-min/bin/python -m pip install --quiet --constraint tests/min_versions.txt --editable . hypothesis pytest pytest-xdist
	touch $@
