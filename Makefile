# Every target does its own set-up: on a fresh machine with Python 3.11 or newer, `make demo` and `make test` just work.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
BIN := .venv/bin

.PHONY: demo test setup lint types docs bench clean

demo: .venv/core  ## poison, detect and repair a classifier, in about two minutes
	$(BIN)/bezoar demo --out bezoar-demo

test: .venv/dev  ## the whole test suite
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

setup: .venv/dev  ## everything a developer needs, in .venv

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: .venv/dev
	$(BIN)/pyright

docs: .venv/dev  ## the pages that are made from the registry and from results/
	$(BIN)/python docs/catalogue.py
	$(BIN)/python docs/results.py
	$(BIN)/python docs/attacks.py
	$(BIN)/python docs/repairs.py
	$(BIN)/python docs/detectors.py
	$(BIN)/python docs/sanitizers.py
	$(BIN)/python docs/reproduction.py
	$(BIN)/python docs/transfer.py
	$(BIN)/python docs/certification.py
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/gallery.py

bench: .venv/dev  ## speed, as ratios of two things in one run; see benchmarks/README.md
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "bezoar needs Python 3.11 or newer; name it with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/core: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@ .venv/core
