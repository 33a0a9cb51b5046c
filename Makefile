# `make demo` and `make test` do all the set-up they need; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
STUDY ?= wild

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow lint clean

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
	@$(BIN)/snakemake demo --report results/studies/demo/report.html --quiet all
	@echo
	@echo "Figure: results/studies/demo/figures/accuracy_by_n.pdf"
	@echo "Table:  results/studies/demo/tables/success_rate.csv"
	@echo "Report: results/studies/demo/report.html"

test: env lint ## the tests (fast ones)
	$(BIN)/python -m pytest

test-slow: env ## the heavy tests
	$(BIN)/python -m pytest -m slow

lint: env ## style of code and workflow
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

clean: ## remove what was made (results, checkpoints, logs), keep the environment
	rm -rf results/* resources logs benchmarks .snakemake
