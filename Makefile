# make demo   set up and see the first experiment
# make test   set up, lint, format check, types, all tests; a Chromium is fetched for the gallery's where there is none
# make test-all   the same with all of what takes long: make test runs a seventh of it, by the weekday
# make test-hostile   all hostile trials
# make test-gpu   what needs a GPU, where there is one
# make test-slurm   the launcher for Slurm against a real one, which it installs (as root), starts and stops
# make docs   the site of the documentation in build/docs/html: studies checked, notebooks executed, both kept
# make docs-fast   the same pages; no study is run and no notebook executed (make test builds this half)
# PIP_ARGS is handed to pip: on a laptop, whatever gets the small CPU build of torch (see README).
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
# two more than there are cores: tests wait for processes, browsers and clusters
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 2)')
# seconds for all tests, some times what they take; what hangs is given up before whoever runs them does
LIMIT ?= 3000
# whatever the environment says, compiled modules are kept: thousands would be compiled again by each process
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all test-hostile test-gpu test-slurm docs docs-fast lint clean
.NOTPARALLEL:

demo: $(STAMP)
	@rm -rf outputs/demo
	@$(BIN)/embedlab experiment=demo hydra.sweep.dir=outputs/demo
	@echo
	@echo "Next:"
	@echo "  $(BIN)/embedlab experiment=turned_over"
	@echo "  $(BIN)/embedlab -m operators=[interpolate] operators.interpolate.toward=fox operators.interpolate.weight=0,0.5,1"
	@echo "  $(BIN)/embedlab experiment=colour_leaks"

# what tests import is compiled once, while types are checked, and not by each worker
test: BESIDE := $(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 &
test: lint
	@$(BIN)/python tests/browser.py
	EMBEDLAB_LIMIT=$(LIMIT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-all:
	$(MAKE) test EMBEDLAB_TURN=all LIMIT=7200

test-hostile: $(STAMP)
	EMBEDLAB_TURN=all OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/hostile

test-gpu: $(STAMP)
	EMBEDLAB_TURN=all OMP_NUM_THREADS=1 $(BIN)/python tests/gpu/run.py

test-slurm: $(STAMP)
	EMBEDLAB_TURN=all $(BIN)/python tests/slurm/run.py

docs: $(STAMP)
	@$(BIN)/python docs/make.py

docs-fast: $(STAMP)
	@$(BIN)/python docs/make.py --fast

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BESIDE) $(BIN)/mypy && wait

$(STAMP): pyproject.toml constraints/pins.txt
	@$(PYTHON) -c 'import sys; sys.exit("embedlab needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints/pins.txt -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf .venv build dist outputs multirun .pytest_cache .mypy_cache .ruff_cache .hypothesis
