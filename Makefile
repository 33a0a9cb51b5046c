# `make demo` and `make test` do all the set-up they need; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
STUDY ?= wild
MODEL ?= resources/checkpoints/smollm2-135m/base

.DEFAULT_GOAL := help
.PHONY: help env demo plan watch lock preflight dag test test-slow test-slurm bench-eval bench-merge lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(VENV)/.complete ## create .venv from requirements.lock

$(VENV)/.complete: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer was expected, found $$($(PYTHON) --version). Name one: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	touch $@

demo: env ## the whole study in small: real model, real questions, no GPU
	$(SNAKEMAKE) demo
	@echo
	@echo "Figure: results/studies/demo/figures/accuracy_by_n.pdf"
	@echo "Table:  results/studies/demo/tables/success_rate.csv"
	@echo "Report: results/studies/demo/report.html"

plan: env ## what a study costs before it runs: make plan STUDY=wild
	@PYTHONPATH=workflow/src $(BIN)/python workflow/scripts/cost_plan.py $(STUDY)

watch: env ## how far the run in this folder is: done, running, failed, time left
	@PYTHONPATH=workflow/src $(BIN)/python workflow/scripts/watch.py

lock: env ## pin every repository of config/models.tsv to its commit
	PYTHONPATH=workflow/src $(BIN)/python workflow/scripts/lock.py

preflight: env ## check a study's checkpoints on the hub from their headers: make preflight STUDY=wild
	$(SNAKEMAKE) --force results/studies/$(STUDY)/preflight.json

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

bench-merge: env ## merging against mergekit and plain equations
	$(BIN)/python tests/benchmarks/bench_merge.py

lint: env ## style of code and workflow
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

clean: ## remove what was made (results, checkpoints, logs), keep the environment
	rm -rf results/* resources logs benchmarks .snakemake
