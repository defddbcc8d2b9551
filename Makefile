# PYTHON=python3.12 make demo picks the interpreter. Everything below is plain pip and python; the README shows the lines.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/streets
CONSTRAINTS := $(if $(wildcard constraints.txt),-c constraints.txt)  # the versions that the tests passed with

.PHONY: demo test test-all faults check clean

demo: $(VENV)/runtime
	$(BIN)/python train.py --out $(RUN)
	rm -rf $(RUN)/held-out
	$(BIN)/python -m unit streets $(RUN)/held-out --train 0
	$(BIN)/python translate.py $(RUN) --direction sunny2rainy $(RUN)/held-out/testA --out $(RUN)/translated/rainy --overwrite
	$(BIN)/python translate.py $(RUN) --direction rainy2sunny $(RUN)/held-out/testB --out $(RUN)/translated/sunny --overwrite
	$(BIN)/python -m unit evaluate $(RUN) --sheet $(RUN)/contact-sheet.png
	@echo "contact sheet: $(RUN)/contact-sheet.png (input, translation, the real image; both ways)"
	@echo "TensorBoard:   $(BIN)/tensorboard --logdir $(RUN), then open http://localhost:6006"

# The default tests, a process a core; "slow" ones (kills, torchrun, training to convergence, a browser) are left to test-all.
test: check
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(VENV)/development
	$(BIN)/python -m pytest -n auto -m slow

# Kills, bit flips and damaged files in full: docs/reliability.md says how many, and how long it takes.
faults: $(VENV)/development
	$(BIN)/python -m pytest tests/faults tests/training/test_distributed.py --long -s

check: $(VENV)/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: requirements.txt $(wildcard constraints.txt) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt $(CONSTRAINTS)
	touch $@

$(VENV)/development: requirements.txt requirements-dev.txt $(wildcard constraints.txt) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt $(CONSTRAINTS)
	touch $@ $(VENV)/runtime

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
