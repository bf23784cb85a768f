# Everything a person types. The recipes are what CI runs.
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
RUNS := runs

.DEFAULT_GOAL := help
.PHONY: help setup demo readme bench gpu gpu-dry gpu-host reproduce-2h reproduce-24h test test-oldest zoo docs drill drill-calls check format ui clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## make .venv with the pinned versions and this package

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard src/pmexp/packed_dropout/cpu/*.cpp src/pmexp/packed_dropout/cpu/*.h)
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pmexp needs Python 3.11 or newer, found " + sys.version.split()[0])'
	python3 -m venv $(VENV)
	@# pip keeps one core busy: two at once, and modules are compiled beside the last, which brings what is left and
	@# says what fails; it builds with the setuptools that is there by then. Modules that mostly nobody imports are
	@# not compiled, and torch has files for later Pythons.
	sed '/^# Beside/,$$d; /^#/d' constraints.txt | xargs -P 2 -n 20 $(PYTHON) -m pip install --quiet --no-compile --no-deps || true
	$(PYTHON) -m compileall -qq -j 0 -x '/(tests|transformers/models|statsmodels|databricks|mypyc?|pip)/' $(VENV)/lib src launchers analysis & compiling=$$!; \
		$(PYTHON) -m pip install --quiet --no-compile --no-build-isolation --constraint constraints.txt \
		--editable '.[dev,distributed]' && { wait $$compiling || true; }
	@$(PYTHON) -m pmexp.packed_dropout
	@touch $@

demo: $(INSTALLED) ## 22 training runs on real data, compared in a report
	$(PYTHON) -m pmexp.train -m experiment=demo
	$(PYTHON) -m pmexp_analysis demo
	@echo "Compare the runs in MLflow: make ui NAME=demo"

readme: demo ## what the README shows of the demo
	$(PYTHON) -m pmexp_analysis.pages.readme

bench: $(INSTALLED) ## speed of dropout and of a whole training step, into runs/bench
	$(PYTHON) -m pmexp.bench level=micro quick=true out=$(RUNS)/bench
	$(PYTHON) -m pmexp.bench level=step out=$(RUNS)/bench

gpu: ## what only a CUDA device can settle, in 9 minutes; needs torch, transformers, triton, numpy
	PYTHONPATH=src python3 -m pmexp.bench.gpu out=docs/results/gpu.md

gpu-dry: $(INSTALLED) ## the same code on the CPU at tiny sizes: it tries every stage and measures nothing
	@mkdir -p $(RUNS)
	$(PYTHON) -m pmexp.bench.gpu device=cpu size=tiny seconds=300 out=$(RUNS)/gpu-dry.md

gpu-host: ## the host's part of a step on CUDA, without a device; needs torch for CUDA, transformers, triton, gcc
	PYTHONPATH=src python3 -m pmexp.bench.host out=docs/results/host-cuda.md

reproduce-2h: $(INSTALLED) ## what of the study fits into 2 hours on the GPUs at hand, with reports
	$(PYTHON) -m pmexp.reproduce hours=2

reproduce-24h: $(INSTALLED) ## the same for 24 hours
	$(PYTHON) -m pmexp.reproduce hours=24

test: $(INSTALLED) ## every test that this machine can run
	@# Bytecode is written in any case: a worker reads what another has compiled, as do the many Pythons that tests start.
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal --durations 40 --durations-min 2

OLDEST := build/oldest
test-oldest: ## the same on the oldest versions that pyproject.toml allows; installs 8 GB, takes twice as long
	python3.11 -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

ZOO := build/zoo
zoo: $(INSTALLED) ## packed dropout in every class of models at hand, into docs/results/zoo.md; takes minutes
	$(PYTHON) -m pip install --quiet --no-deps --constraint constraints.txt --target $(ZOO) --upgrade timm diffusers torchvision
	PYTHONPATH=$(ZOO) OMP_NUM_THREADS=1 $(PYTHON) -m pmexp.zoo out=docs/results/zoo.md

docs: $(INSTALLED) ## the documentation as a site, into build/site; a broken link is an error
	$(PYTHON) -m pip install --quiet --constraint constraints.txt '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

N := 50
drill: $(INSTALLED) ## kill runs at N random moments; each has to end as the run left alone, bit for bit
	PYTHONPATH=tests/shared:tests/drills OMP_NUM_THREADS=1 $(PYTHON) tests/drills/drill.py $(N)

drill-calls: $(INSTALLED) ## each write, rename and sync of a run fails or kills it; the next try has to make up for it
	PYTHONPATH=tests/shared:tests/drills OMP_NUM_THREADS=1 $(PYTHON) tests/drills/call_drill.py

check: $(INSTALLED) ## lint, formatting, types and import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

format: $(INSTALLED) ## mend formatting and what ruff can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

ui: $(INSTALLED) ## MLflow on http://127.0.0.1:5000, opened on an experiment with NAME=demo
	$(PYTHON) -m pmexp.tracking.ui $(NAME) runs_dir=$(RUNS)

clean: ## remove the environment and caches; runs and reports stay
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
