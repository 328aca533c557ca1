PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STEP := @printf '\n== %s\n'
INSTALL := @$(BIN)/python deploy/install.py
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --max-worker-restart 3 \
  --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo serve test check lint format coverage screenshots clean
.DELETE_ON_ERROR:

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
	@echo 'Variables: DATA=FOLDER and WEIGHTS=imagenet for demo, PORT=8001 for demo and serve, TORCH_INDEX=URL for the installation, ARGS="-k name" for test, PYTHON=python3.12'

demo: $(VENV)/installed ## install, serve, and behind the page train and index
	@exec $(BIN)/python deploy/demo.py $(if $(DATA),--data "$(DATA)") \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)")

# gunicorn.conf.py reads PORT, which make passes on in the environment.
serve: $(VENV)/installed ## serve what is there, without training
	@ALEXNET_SWITCH_WITHOUT_TOKEN=$${ALEXNET_SWITCH_WITHOUT_TOKEN-1} \
	  exec $(BIN)/gunicorn "app:create_app()"

test: $(VENV)/installed-test ## install what the tests need and run them
	$(PYTEST) --durations 10 $(ARGS)

check: lint test ## lint, then test

lint: $(VENV)/installed-test ## formatting, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-test ## format the code and apply the linter's fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(VENV)/installed-test ## run the tests and report line coverage
	$(PYTEST) --cov --cov-report term:skip-covered $(ARGS)

screenshots: $(VENV)/installed-test ## photograph every page for docs/gallery.md
	@OMP_NUM_THREADS=1 $(BIN)/python -m docs.screenshots

clean: ## remove the environment and build products; keeps var/
	rm -rf $(VENV) build *.egg-info

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(STEP) "Installing into $(VENV), once"
	$(INSTALL)
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(STEP) "Installing into $(VENV), tests included, once"
	$(INSTALL) --extra test
	@# With its dependencies, milvus-lite would install faiss-cpu over faiss-gpu's files.
	@$(BIN)/python -m pip --disable-pip-version-check install --no-deps -c constraints.txt milvus-lite
	@touch $@ $(VENV)/installed

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
