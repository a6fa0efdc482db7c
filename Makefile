# make demo   train on a small real data set, with everything there is to look at; two minutes after installation
# make test   run every test
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test suite test-latest lint style types format

demo: $(VENV)/.demo
	$(BIN)/hf-tasks sample digits data/digits
	$(BIN)/hf-tasks train recipes/image_classification/digits.yaml --overwrite \
		"report.mlflow={experiment: digits}" report.tensorboard=true "export=[torchscript]"
	@echo "look at the run:"
	@echo "  runs/digits/report.html    opens in any browser, without a network"
	@echo "  $(BIN)/tensorboard --logdir runs/digits/logs"
	@echo "  $(BIN)/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"

# The types are checked beside the tests, as mypy keeps but one core busy.
test: style
	@$(MAKE) --no-print-directory --jobs 2 types suite

suite: $(VENV)/.test
	$(BIN)/python -m slipcover --source hf_tasks --json --out .coverage.json -m pytest -n 3
	@$(BIN)/python -c "import json; print('lines of hf_tasks that the tests run:', \
		round(json.load(open('.coverage.json'))['summary']['percent_covered'], 1), '%')"

# The newest transformers and sentence-transformers, which the onnx extra does not allow.
test-latest: .venv-latest/.latest
	.venv-latest/bin/python -m pytest -n 3

lint: style types

style: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each mark stands for a set of extras that is installed; it is older than pyproject.toml when they changed.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable ".[mlflow,tensorboard]"
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable ".[all,test]"
	touch $@ $(VENV)/.demo

.venv-latest/.latest: pyproject.toml
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable \
		".[faiss,lora,mlflow,onnx-torch,tensorboard,test,torchao,tune]" "transformers>=5" "sentence-transformers>=6"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
