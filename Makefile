# Two commands do everything: `make demo` and `make test`. Everything is installed into .venv; no root needed.
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3,$(shell $(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $(p))))
CLIPS ?= 40
EPOCHS ?= 16
BIN := .venv/bin

.PHONY: help setup demo proof difficulty test lab lint clean

help:
	@echo "make demo                  render, preprocess, train, prove and compare everything"
	@echo "make demo CLIPS=8 EPOCHS=3 a taste of the same"
	@echo "make proof                 every claim with three seeds (plans/proof.yaml; hours on a busy machine, resumable)"
	@echo "make difficulty            the models on corpora of growing difficulty (plans/difficulty.yaml; resumable)"
	@echo "make test                  all tests"
	@echo "make lab                   JupyterLab at the repository's root"

# Installed anew only when the list of dependencies changes.
.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --no-compile --no-deps -c constraints.txt tinysoundfont
	-@test -d .git && $(BIN)/nbstripout --install --attributes .git/info/attributes 2>/dev/null && $(BIN)/nbdime config-git --enable 2>/dev/null
	@touch $@

setup: .venv/.ready

demo: setup
	@$(BIN)/vaelib demo --clips $(CLIPS) --epochs $(EPOCHS)

proof difficulty: setup
	@$(BIN)/vaelib batch plans/$@.yaml

test: setup
	$(BIN)/python -m pytest

lab: setup
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" $(if $(filter 0,$(shell id -u)),--allow-root)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf data/corpora data/stores outputs/* papermill_runs/*
