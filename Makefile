# `make sft` on a fresh clone sets everything up and trains; see README.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup sft dpo kto pipeline evaluate test check schema docs bench gpu gpu-prepare torture clean

PYTHON ?= python3
BIN := .venv/bin
ACCELERATE ?= configs/accelerate/cpu.yaml
OVERRIDES ?=
PYTEST ?=
BENCH ?=
GPU ?=
TORTURE ?=
# SIGUSR1 is passed on too; how long the launcher waits until a step is done and saved; docs/signals.md
SIGNALS := PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
STOP_WAIT ?= 600
LAUNCH = $(SIGNALS) TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$(STOP_WAIT) $(BIN)/accelerate launch --quiet --config_file $(ACCELERATE) -m olmoe_ft train

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 13
	@echo 'Variables: RECIPE=recipes/….yaml  ACCELERATE=configs/accelerate/….yaml  OVERRIDES="training.max_steps=10"'

setup: .venv/installed  ## a virtual environment with the pinned dependencies (every other target does this first)

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

sft: RECIPE ?= recipes/tiny/sft.yaml
sft: setup  ## supervised fine-tuning (default: a tiny OLMoE on data/skills, minutes on a CPU)
	$(LAUNCH) $(RECIPE) $(OVERRIDES)

dpo: RECIPE ?= recipes/tiny/dpo.yaml
dpo: setup  ## preferences from pairs of answers (default: starts from the run of `make sft`)
	$(LAUNCH) $(RECIPE) $(OVERRIDES)

kto: RECIPE ?= recipes/tiny/kto.yaml
kto: setup  ## preferences from answers judged one by one (default: starts from the run of `make sft`)
	$(LAUNCH) $(RECIPE) $(OVERRIDES)

pipeline: RECIPE ?= recipes/tiny/pipeline.yaml
pipeline: setup  ## SFT, then DPO, from one recipe
	$(LAUNCH) $(RECIPE) $(OVERRIDES)

evaluate: MODELS ?= runs/tiny-sft runs/tiny-dpo
evaluate: setup  ## put tasks to models, side by side (default: the runs of `make sft` and `make dpo`; MODELS=… TASKS=…)
	$(BIN)/olmoe-ft evaluate $(MODELS) $(if $(TASKS),--tasks $(TASKS))

test: setup  ## the tests that take seconds each (PYTEST='-m slow' runs the long ones)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

check: setup  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

schema: setup  ## recipes/schema.json, by which editors check recipes, and docs/options.md
	$(BIN)/python -m olmoe_ft.recipe.json_schema > recipes/schema.json.partial
	mv recipes/schema.json.partial recipes/schema.json
	$(BIN)/python -m olmoe_ft.recipe.options.document > docs/options.md.partial
	mv docs/options.md.partial docs/options.md

docs: setup  ## the documents as a site, site/index.html; a broken link or anchor fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup  ## training steps beside TRL's, transformers' and PEFT's, into docs/performance.md (BENCH='--sizes mid --lengths 512')
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/speed.py $(BENCH)

gpu: setup  ## what a GPU gets right and how fast, in 8 minutes; without one a dry run (GPU='--parts speed'); docs/gpu.md
	PYTHONPATH=.:benchmarks $(BIN)/python -m gpu.run $(GPU)

gpu-prepare: setup  ## the same for a machine without a network: fills .gpu/, says what to type there
	PYTHONPATH=benchmarks $(BIN)/python -m gpu.prepare

torture: setup  ## kill runs and damage their files, half an hour; each has to go on exactly (TORTURE='--only zero3'); docs/reliability.md
	PYTHONPATH=.:benchmarks $(BIN)/python -m torture.run $(TORTURE)

clean:  ## remove runs, the site and caches (not the virtual environment)
	rm -rf runs site wandb .pytest_cache .mypy_cache .ruff_cache
