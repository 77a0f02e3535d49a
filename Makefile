# make demo   train, calibrate and read the budget table of the bundled digits
# make test   the default test suite        make test-slow   what starts many processes
# make lint   ruff, mypy --strict, and whether generated pages are stale
# make docs   docs/ as a site in site/, every link checked
# make reference  write the generated pages anew        make clean  remove .venv and caches
# make bench  measure the claims about speed and memory on this CPU, in less than ten minutes
# make gpu DATA=cifar100   on a machine with a GPU: measure it, then train the study of 300 epochs

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info < (3,14))' \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow bench gpu lint docs docs-check reference clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,plots,tensorboard]'
	@touch $@

demo: $(READY)
	@run=$$($(BIN)/hdkd train digits) && \
	$(BIN)/hdkd eval-anytime "$$run" --format table && \
	$(BIN)/hdkd calibrate-thresholds "$$run" --budget 0.3 --budget 0.4 --budget 0.5 --budget 0.6 \
		--budget 0.8 --budget 1 >/dev/null && \
	$(BIN)/hdkd eval-budget "$$run" --format table && \
	echo "the run is in $$run"

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

bench: $(READY)
	$(BIN)/python benchmarks/bench.py

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/hdkd study benchmarks/studies/gpu.toml --data-dir $(DATA) --device cuda

lint: docs-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs-check: $(READY)
	$(BIN)/python scripts/build_reference.py --check

reference: $(READY)
	$(BIN)/python scripts/build_reference.py

docs: docs-check
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -d site/.doctrees docs site
	@echo "open site/index.html"

clean:
	rm -rf site $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
