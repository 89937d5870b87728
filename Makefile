# The words people say: make train, make test, make lint, make help. Each sets up .venv by itself, once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ALL    := slurm,postgres,archives,erasure,app,export,dashboards,dev

.DEFAULT_GOAL := help
.PHONY: help train test quick lowest docs lint format constraints clean

help: ## say what the targets do
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

train: $(VENV)/.run ## set up, make the embedded survey, train the paper's first pair, print the tables
	$(BIN)/python train.py lambdas=first_pair

test: $(VENV)/.all ## set up with every extra and run the tests, three files at a time: many of them wait
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/.all ## the tests of the working day: no process, server or browser is started
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not slurm and not postgres and not browser and not process"

LOWEST := .venv-lowest
BOUNDS := model probes leakage regression networks losses data survey readout train conf
lowest: $(VENV)/.all ## install the lower bounds of pyproject.toml beside it (PYTHON=python3.10, some GB) and run a fast subset with them
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/python -c "import re, tomllib; print(*(re.sub(r'>=([^,]+).*', r'==\1', line) for line in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']), sep='\n')" > $(LOWEST)/bounds.txt
	PIP_CONSTRAINT=/dev/null $(LOWEST)/bin/pip install --quiet -r $(LOWEST)/bounds.txt pytest pytest-xdist
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation -w $(LOWEST)/wheel .
	$(LOWEST)/bin/pip install --quiet --no-deps --force-reinstall $(LOWEST)/wheel/*.whl
	$(LOWEST)/bin/python -m pytest -p no:cacheprovider $(BOUNDS:%=tests/test_%.py)

docs: $(VENV)/.all ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/.all ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.all ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(VENV)/.all ## renew constraints.txt from what is installed
	$(BIN)/pip freeze --exclude-editable | sed -E 's/\+cpu$$//' | grep -v '@' | sed "s/$$/; python_version >= '3.11'/" > constraints.txt

clean: ## remove the environment
	rm -rf $(VENV)

# constraints.txt pins what was tested together; older Pythons resolve freely within pyproject.toml
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V), spectangle needs 3.10 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[$(ALL)]'
	@touch $@ $(VENV)/.run
