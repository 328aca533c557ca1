# make demo    install, train, index, serve         make test     install and run the tests
# make check   lint, types, import rules, tests     make screenshots    of every page, into docs/

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAY := @printf '\n== %s\n'
TRAIN := $(BIN)/python training/run.py --if-needed $(if $(DATA),--data "$(DATA)")

.PHONY: demo test check lint screenshots clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(SAY) "1 of 3: train the network"
	@$(TRAIN)
	$(SAY) "2 of 3: index the features of the training images"
	@$(BIN)/flask index build --if-needed
	$(SAY) "3 of 3: serve"
	@exec $(BIN)/gunicorn "app:create_app()"

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

check: lint test

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

screenshots: $(VENV)/installed-test
	@OMP_NUM_THREADS=1 $(BIN)/python -m docs.screenshots

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(SAY) "Installing into $(VENV): torch and what it needs are a few gigabytes, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(SAY) "Installing into $(VENV), with what the tests need: a few gigabytes, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@# milvus-lite asks for faiss-cpu, whose files would take the place of faiss-gpu's.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps milvus-lite
	@touch $@ $(VENV)/installed

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build *.egg-info
