# `make demo` and `make test` do all the set-up they need; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
STUDY ?= wild
MODEL ?= resources/checkpoints/smollm2-135m/base

.DEFAULT_GOAL := help
.PHONY: help env pins demo plan watch lock preflight dag test test-slow test-slurm bench-eval whole-tasks bench-merge lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(VENV)/.complete ## create .venv: the packages of requirements.lock, and this one: make env [TORCH=cu130|cu126|cpu]

# Another build of torch than the last one asked for.
ifneq ($(TORCH),)
ifneq ($(TORCH),$(shell cat $(VENV)/.torch 2>/dev/null))
.PHONY: $(VENV)/.complete
endif
endif

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer was expected, found $$($(PYTHON) --version). Name one: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	build=$$($(BIN)/python envs/choose_torch.py $(TORCH)) && $(BIN)/pip install --quiet \
	  $(if $(WILDMERGE_TORCH_INDEX),--extra-index-url "$(WILDMERGE_TORCH_INDEX)") \
	  --requirement requirements.lock "$$build"
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	echo $(TORCH) > $(VENV)/.torch
	touch $@

pins: env ## write requirements.lock and envs/wildmerge.yaml from pyproject.toml: make pins [UPGRADE="ruff torch"]
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-annotate --quiet \
	  --custom-compile-command 'make pins [UPGRADE="names of packages"]' \
	  $(addprefix --upgrade-package ,$(UPGRADE)) --output-file requirements.lock
	{ echo "# For snakemake --sdm conda: the pins of requirements.lock, written by make pins."; \
	  echo "channels: [conda-forge, nodefaults]"; \
	  echo "dependencies:"; \
	  echo "  - python=3.11"; \
	  echo "  - pip"; \
	  echo "  - pip:"; \
	  sed -n 's/^[^#]/      - &/p' requirements.lock; } > envs/wildmerge.yaml

demo: env ## the whole study in small: real model, real questions, no GPU
	$(SNAKEMAKE) demo
	@echo
	@echo "Figure: results/studies/demo/figures/accuracy_by_n.pdf"
	@echo "Table:  results/studies/demo/tables/success_rate.csv"
	@echo "Report: results/studies/demo/report.html"

plan: env ## what a study costs before it runs: make plan STUDY=wild
	@$(BIN)/wildmerge plan $(STUDY)

watch: env ## how far the run in this folder is: done, running, failed, time left
	@$(BIN)/wildmerge watch

lock: env ## pin every repository of config/models.tsv to its commit
	$(BIN)/wildmerge lock

preflight: env ## check a study's checkpoints on the hub from their headers: make preflight STUDY=wild
	$(BIN)/wildmerge preflight $(STUDY)

dag: env ## draw the rules again (docs/rulegraph.svg; needs graphviz)
	$(BIN)/snakemake wild --rulegraph --quiet all | dot -Grankdir=LR -Tsvg -o docs/rulegraph.svg

test: env lint ## the tests (fast ones)
	$(BIN)/python -m pytest

test-slow: env ## the heavy tests
	$(BIN)/python -m pytest -m slow

test-slurm: env ## all tests on a real Slurm on this machine, heavy ones too
	WILDMERGE_REQUIRE_SLURM=1 $(BIN)/python -m pytest tests/slurm -m "slow or not slow"

bench-eval: env ## evaluation against lm-eval's hf backend: make bench-eval [MODEL=folder] [DATA=folder]
	$(BIN)/python tests/benchmarks/bench_eval.py --model $(MODEL) $(if $(DATA),--data $(DATA))

whole-tasks: env ## the paper's tasks, whole, against lm-eval's command line: make whole-tasks DATA=folder [TASKS="prost mmlu"]
	$(BIN)/python tests/benchmarks/whole_tasks.py $(if $(DATA),--data $(DATA)) $(if $(TASKS),--tasks $(TASKS))

bench-merge: env ## merging against mergekit and plain equations
	$(BIN)/python tests/benchmarks/bench_merge.py

lint: env ## style of code and workflow, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/mypy

clean: ## remove what was made (results, checkpoints, logs), keep the environment
	rm -rf results/* resources logs benchmarks .snakemake
