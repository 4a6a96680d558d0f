# Two commands do everything: `make demo` and `make test`. Everything is installed into .venv; no root needed.
FOUND := $(firstword $(foreach p,python3.12 python3.11 python3,$(shell $(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $(p))))
PYTHON ?= $(FOUND)
CLIPS ?= 40
EPOCHS ?=
BIN := .venv/bin
# A container may ask for no bytecode: every kernel and worker would compile all that it imports, half a minute each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo proof ladder wheelhouse test test-all lab bench bench-ui lint clean

help:
	@echo "make demo                  render, preprocess, train, test and compare everything; says how long it takes"
	@echo "make demo CLIPS=8 EPOCHS=3 a taste of the same"
	@echo "make proof                 every claim with three seeds (plans/proof.yaml; hours on a busy machine, resumable)"
	@echo "make ladder                the models on corpora of growing difficulty (plans/ladder.yaml; resumable)"
	@echo "make test                  the tests, but for those in a browser and the slowest"
	@echo "make test-all              all tests"
	@echo "make wheelhouse PYTHON=3.12  what a GPU host without internet lacks, for its Python (docs/GPU_HOST.md)"
	@echo "make lab                   JupyterLab at the repository's root"
	@echo "make bench                 every figure of docs/BENCHMARKS.md, written there (half an hour; ARGS=\"--parts training\": printed only)"
	@echo "make bench-ui              how long a reader waits for an explorer's picture and sound (needs a Chromium)"

# Installed anew only when the list of dependencies changes.
.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python"; exit 2; }
	$(if $(filter 3.%,$(PYTHON)),$(FOUND),$(PYTHON)) -m venv .venv
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --no-compile --no-deps -c constraints.txt tinysoundfont mirdata
	@touch $@

# What notebooks need of Git (.gitattributes names these drivers) and of Jupyter. Paths are relative to the repository's
# root, where Git runs its drivers: the clone may move. Extra keys: what papermill, JupyterLab and a kernel write into
# a notebook that runs.
STRIPPED := metadata.papermill cell.metadata.papermill metadata.vscode $(addprefix metadata.language_info.,\
	codemirror_mode file_extension mimetype nbconvert_exporter pygments_lexer version)
define GIT_SETUP
git config filter.nbstripout.clean '$(BIN)/python -m nbstripout --keep-id' && \
git config filter.nbstripout.extrakeys '$(STRIPPED)' && \
git config filter.nbstripout.smudge cat && git config filter.nbstripout.required true && \
git config diff.jupyternotebook.command '$(BIN)/python -m nbdime.vcs.git.diffdriver diff --use-filter' && \
git config merge.jupyternotebook.name 'notebooks, cell by cell' && \
git config merge.jupyternotebook.driver '$(BIN)/python -m nbdime.vcs.git.mergedriver merge %O %A %B %L %P'
endef

setup: .venv/.ready
	@mkdir -p .venv/etc/jupyter && ln -sfn $(addprefix ../../../,$(wildcard jupyter_*_config.py)) .venv/etc/jupyter/
	@test ! -e .git || { $(GIT_SETUP); } || echo "Git was not told how to handle notebooks (its reason is above):\
	 outputs would be committed; run \`make setup\` again." >&2

demo: setup
	@$(BIN)/vaelib demo --clips $(CLIPS) $(EPOCHS:%=--epochs %)

proof ladder: setup
	@$(BIN)/vaelib batch plans/$@.yaml

# PYTHON and MACHINE are the host's; HAS names further packages that it has: HAS="numba llvmlite".
wheelhouse: setup
	@$(BIN)/python tools/wheelhouse.py --python $(if $(filter 3.%,$(PYTHON)),$(PYTHON),3.12) --machine $(or $(MACHINE),x86_64) --has "$(HAS)"

test: setup
	$(BIN)/python -m pytest

test-all: setup
	$(BIN)/python -m pytest -m ""

lab: setup
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" $(if $(filter 0,$(shell id -u)),--allow-root)

# pythae is only for this; what else it asks for is there, or is not imported (pyproject.toml).
.venv/.bench: .venv/.ready
	$(BIN)/python -m pip install -q --no-compile --no-deps -c constraints.txt pythae
	@touch $@

bench: setup .venv/.bench
	@$(BIN)/python -m benchmarks $(or $(ARGS),--write)

bench-ui: setup
	@$(BIN)/python -m benchmarks --parts explorers $(ARGS)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache

clean:
	rm -rf data/corpora data/stores outputs/* papermill_runs/*
