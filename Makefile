# Two commands do everything, set-up included, on a machine that has Python >= 3.11, a C compiler and make:
#   make repro    render, train, acquire, report: then open reports/index.html
#   make test     all tests
#   make gpu      ten minutes on a GPU host; without a network: `make bundle` elsewhere, and carry .bundle/ along
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Neither DVC nor Great Expectations reports to its makers.
export DVC_NO_ANALYTICS := true
export GX_ANALYTICS_ENABLED := false

.PHONY: repro test lint setup lock clean git gpu bundle

repro: git $(VENV)/ready
	dvc repro
	@echo "Done: open reports/index.html"

# A file's tests stay with one worker, which has their fixtures; `pytest` by hand is one process. Watching which
# lines run makes Python half as slow again: CI asks for it, with COVERAGE="--cov".
TESTERS ?= 2
COVERAGE ?=
test: $(VENV)/ready
	pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder $(COVERAGE)

# DVC wants a checkout; what was unpacked from an archive is none.
git:
	@git rev-parse --git-dir > /dev/null 2>&1 || grep -qs 'no_scm = true' .dvc/config .dvc/config.local || \
		{ echo "No git here: 'git init && git add -A && git commit -m start', or, without experiments, write"; \
		echo "'no_scm = true' under [core] in .dvc/config"; exit 1; }

lint: $(VENV)/ready
	ruff check .
	ruff format --check .
	mypy

setup: $(VENV)/ready

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "MindGap needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	command -v uv > /dev/null || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	uv pip install --quiet --python $(VENV)/bin/python --require-hashes --requirements requirements.lock
	uv pip install --quiet --python $(VENV)/bin/python --no-deps --editable .
	touch $@

# With .bundle/ there is no network: the host's own Python, and the wheels beside it. OUT: where results go.
OUT ?= .mindgap/gpu/results
SECONDS ?= 570
ifneq ($(wildcard .bundle),)
gpu:
	$(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target .mindgap/site .bundle/*.whl
	PYTHONPATH=$(CURDIR)/.mindgap/site $(PYTHON) cluster/gpu_check.py --out $(OUT) --seconds $(SECONDS) $(GPU_OPTIONS)
else
gpu: $(VENV)/ready
	python cluster/gpu_check.py --out $(OUT) --seconds $(SECONDS) $(GPU_OPTIONS)
endif

bundle:
	bash cluster/bundle.sh

# requirements.lock: pins and hashes, no addresses.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --output-file requirements.lock

clean:
	rm -rf .mindgap data/prepared data/models data/runs reports/validation
