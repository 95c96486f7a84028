# The two commands that matter: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint format train evaluate examples benchmarks gpu gpu-check clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/runtime  ## set up and open the page (MODEL=hub/id for another model)
	$(BIN)/python app.py

test: $(VENV)/develop  ## set up, lint and run all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lint: $(VENV)/develop  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/develop  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(VENV)/develop  ## train the embedded model from scratch; the last stage wants a GPU
	for stage in symbols deeper pixels pictures; do \
		$(BIN)/python -m tiny.train --stage $$stage || exit 1; \
	done
	for stage in joint refine crowds settle polish retell finish sharpen reread hone recite \
		rehearse; do \
		$(BIN)/torchrun --nproc-per-node 2 -m tiny.train --stage $$stage --threads 1 || exit 1; \
	done
	$(BIN)/python -m tiny.train --stage master --export assets/tiny-llava

evaluate: $(VENV)/develop  ## measure the embedded model, about an hour, and write its card
	$(BIN)/python -m tiny.evaluate --suite papers --questions 56 --workers 2 --dtype bfloat16 --readme README.md \
		--card assets/tiny-llava/README.md --out assets/tiny-llava/evaluation.json

examples: $(VENV)/develop  ## draw the examples again and answer them
	$(BIN)/python -m tiny.examples

benchmarks: $(VENV)/develop  ## measure what compression saves on this machine (MINUTES=60)
	$(BIN)/python -m benchmarks --out runs/benchmarks --minutes $(or $(MINUTES),60)

gpu: $(VENV)/runtime  ## add what speeds up a CUDA machine
	$(BIN)/pip install --no-build-isolation -r requirements-gpu.txt

gpu-check: $(VENV)/runtime  ## try models of published size on this GPU
	mkdir -p runs
	$(BIN)/python -m benchmarks.gpu_check --json runs/gpu-check.json

clean:  ## remove the environment
	rm -rf $(VENV)

$(VENV)/runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/develop: requirements-dev.txt $(VENV)/runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@
