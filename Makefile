SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# the first that runs and that pyproject.toml allows; another one: make PYTHON=/path/to/python3.12 ...
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c "$(FITS)" 2>/dev/null && echo "$$p" && exit; done; echo python3)
UV := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)

PROFILE ?= demo
FULL ?=
NOTEBOOKS ?=
DETACH ?=
export PYTHONPATH := $(CURDIR)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# a file is one process's; files in their order, or those of few long tests would all come last
PYTEST = python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
PROFILES = $(notdir $(patsubst %/,%,$(wildcard results/demo/ results/mini/ results/h200/)))
JOBS = $$(python -m saistudy jobs --profile $(PROFILE))
# stamps are whole or absent: what Snakemake calls incomplete after a kill is not
SNAKEMAKE = snakemake --quiet all --nolock --ignore-incomplete --rerun-triggers mtime --config profile=$(PROFILE) full=$(FULL) notebooks=$(NOTEBOOKS)

.PHONY: help study test test-full table audit report lab clean

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) saistudy/hardware.py
	@echo "installing about 6 GB into .venv from requirements.lock, some minutes"
	@test -x .venv/bin/python && .venv/bin/python -c "$(FITS)" || $(PYTHON) -m venv --clear .venv
	@if .venv/bin/python -m pip install --quiet uv==$(UV); then \
		VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/uv pip sync --quiet --require-hashes requirements.lock; \
	else \
		echo "uv cannot be had: pip installs instead, which takes longer"; \
		.venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock; \
	fi
	@if test -x .venv/bin/uv; then \
		VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/uv pip install --quiet --no-deps --no-build-isolation -e .; \
	else \
		.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

constraints.txt: requirements.lock
	sed -E '/^ +--hash/d; s/ *\\$$//' $< > $@.part
	mv $@.part $@

study: .venv/.ready ## the whole study; PROFILE=demo, mini or h200, FULL=1 the grid, NOTEBOOKS=all speed too, DETACH=1
	@python -m saistudy plan --profile $(PROFILE) $(if $(FULL),--full) $(if $(filter all,$(NOTEBOOKS)),--speed) $(if $(filter h200,$(PROFILE)),--ask)
	@python -m saistudy study --profile $(PROFILE) $(if $(DETACH),--detach) -- $(SNAKEMAKE) --cores $(JOBS) --keep-going

test: .venv/.ready ## ruff, pytest and nbval, the fast set
	@ruff check . && ruff format --check --quiet .
	@$(PYTEST) -m "not full"

test-full: .venv/.ready ## every count that the tests know; writes results/test-full.json
	@SAISTUDY_TEST_REPORT=results/test-full.json $(PYTEST) -m "full or not full"

table: .venv/.ready ## tables and README from the records in results/
	@python -m saistudy table $(PROFILES)
	@python -m saistudy seal $(PROFILES)

audit: .venv/.ready ## is what stands in results/ what was computed? Nothing is trained
	@python -m saistudy audit

report: .venv/.ready ## the study as a static site in work/report, from what stands in results/
	@python -m saistudy report

lab: .venv/.ready ## the notebooks in JupyterLab, on this machine only, their contents first
	.venv/bin/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks/index.md \
		--LabApp.app_settings_dir=notebooks/settings --LabApp.news_url=None \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
		--LabApp.extension_manager=readonly $(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## away with work/ (weights, bundles, trees), explored results and staged data; results/ stays
	@models_n=$$({ find work -name best.pt 2>/dev/null || true; } | wc -l); \
	if [ "$$models_n" -gt 0 ] && [ "$${YES:-}" != 1 ]; then \
		read -r -p "$$models_n trained models in work/ go with it. Type yes to go on: " answer || true; \
		[ "$${answer:-}" = yes ] || { echo "nothing was removed; YES=1 asks nothing"; exit 1; }; \
	fi
	@test ! -x .venv/bin/python || for profile in demo mini h200; do \
		.venv/bin/python -m saistudy stage release --profile $$profile >/dev/null; done
	rm -rf work results/lab
