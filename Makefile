# make demo    starts everything on loopback and pushes head CTs through it     (FROM=folder, ONCE=1)
# make test    installs what it lacks, then lint, types, import contract, tests
# make bench   time from the last image to the flag on the list; bench-intake, bench-endpoint, bench-worklist, ...

SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed-from-dev
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test lint types tests debian-packages bench bench-intake bench-intake-limits bench-endpoint bench-input \
  bench-training bench-worklist prove-intake fuzz-intake screenshots lock clean

demo: $(STAMP)
	@$(BIN)/python demo.py $(if $(FROM),--from "$(FROM)") $(if $(ONCE),--once)

test: $(STAMP) debian-packages lint types tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

tests: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

debian-packages:
	@bash tests/install_debian_packages.sh

bench: $(STAMP)
	$(BIN)/python -m benchmarks.time_to_flag

bench-intake: $(STAMP)
	$(BIN)/python -m benchmarks.intake

bench-intake-limits: $(STAMP)
	$(BIN)/python -m benchmarks.intake_limits

bench-endpoint: $(STAMP) build/bench-venv-runtimes/.installed
	$(BIN)/python -m benchmarks.endpoint
	$(BIN)/python -m benchmarks.endpoint_gpu

# OpenVINO and ONNX Runtime, for comparison only
build/bench-venv-runtimes/.installed: benchmarks/runtimes.txt
	$(PYTHON) -m venv build/bench-venv-runtimes
	build/bench-venv-runtimes/bin/pip install --quiet --requirement benchmarks/runtimes.txt
	build/bench-venv-runtimes/bin/pip install --quiet --no-deps tf2onnx==1.17.0
	touch $@

bench-input: $(STAMP)
	$(BIN)/python -m benchmarks.input_pipeline

# Installs PyTorch, a build for CPUs where pip finds one, into a folder of its own: only this benchmark needs it.
bench-training: $(STAMP) build/bench-venv/.installed
	$(BIN)/python -m benchmarks.training --torch build/bench-venv/bin/python

build/bench-venv/.installed:
	$(PYTHON) -m venv build/bench-venv
	build/bench-venv/bin/pip install --quiet torch==2.13.0 numpy
	@touch $@

bench-worklist: $(STAMP)
	$(BIN)/python -m benchmarks.worklist

prove-intake: $(STAMP)
	$(BIN)/python -m tests.dicom_listener.prove_intake --seeds 1000

fuzz-intake: $(STAMP)
	$(BIN)/python -m tests.dicom_listener.fuzz_intake --inputs 100000

screenshots: $(STAMP)
	$(BIN)/python -m docs.take_screenshots

# The lock files name versions and hashes, never an index. The whole is locked first, the parts take its versions.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock:
	$(LOCK) pyproject.toml --all-extras --group dev --output-file requirements/dev.txt
	for extra in listener worker server worklist train; do \
	  $(LOCK) pyproject.toml --extra $$extra --constraints requirements/dev.txt --output-file requirements/$$extra.txt; \
	done
	echo setuptools | $(LOCK) - --constraints requirements/dev.txt --output-file requirements/build.txt

$(STAMP): requirements/dev.txt pyproject.toml
	@bash requirements/make_venv.sh "$(PYTHON)"
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
