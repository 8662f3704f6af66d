# make demo      train a small GPT and write with it: needs Python >= 3.11 and a package index, nothing else
# make test      every check and every fast test;  make test-all: the real-size tests too, and none may be skipped
# make check     style, types, import directions, translations, size of the core
# make bench     the published figures, measured again on this machine
# make messages  translations: collect the messages from the source and compile the catalogue

PYTHON ?= python3
BIN    := .venv/bin

.PHONY: help demo test test-all check bench messages
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# Two stamps, so that the demo waits for nothing that only tests need.
.venv/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Pellucid needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; } >&2
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	@touch $@

.venv/.bench: .venv/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	@touch $@

demo: .venv/.runtime
	@if [ -e runs/demo ]; then old=runs/demo-$$(date +%Y%m%d-%H%M%S); mv runs/demo $$old; echo "The earlier demo is now $$old."; fi
	$(BIN)/pellucid train --out runs/demo --minutes 2.5
	@echo
	$(BIN)/pellucid generate runs/demo "The " --max-tokens 200 --temperature 0.8 --seed 1
	@echo
	@echo "Try next:  试试："
	@echo "  $(BIN)/pellucid generate runs/demo \"A class\" --show probabilities   # how sure was it of each token?  每个 token 它有多大把握？"
	@echo "  $(BIN)/pellucid why runs/demo \"A class\" --save why.html              # why this next token?  为什么是这个词元？"
	@echo "  $(BIN)/pellucid evaluate runs/demo README.md                        # how well does it know this text?  它对这篇文字有多熟？"
	@echo "  $(BIN)/pellucid train YOUR_TEXT --out runs/mine --dry-run           # the plan for your own text  为你自己的文字定计划"
	@echo "  $(BIN)/pellucid train YOUR_TEXT --out runs/mine                     # and train on it  然后训练"

test: check
	$(BIN)/pytest -n auto -m "not slow"

test-all: check cache/.fetched .venv/.bench
	$(BIN)/pytest -n auto --no-skips

check: .venv/.dev
	bash -n .ci/run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/messages.py --check
	$(BIN)/python tools/core_lines.py

bench: .venv/.bench cache/.fetched
	@for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

messages: .venv/.dev
	$(BIN)/python tools/messages.py

cache/.fetched: .venv/.runtime tests/fetch.py
	$(BIN)/python tests/fetch.py
	@touch $@
