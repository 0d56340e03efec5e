# What people type. `make venv` comes first and by itself; everything else asks for it.
# Needs: GNU make, bash, Python 3.11 or 3.12 with venv. Nothing is installed outside .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

BIN := .venv/bin
STAMP := .venv/installed
WORKLOAD ?= weth,uniform
RUN_ARGS ?=
LANES_ARGS ?=
TEST_ARGS ?=
# How many processes share the tests, whole files at a time; 1: one after the other, in this one.
TEST_JOBS ?= 2
# The module that compiles kernels ahead; it has to reach every kernel that a user waits for.
WARM ?= kernels.warm
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Whose Python runs `make gpu`; one that has the packages of the extra [gpu] needs no .venv-gpu.
GPU_PYTHON ?=

.PHONY: help venv venv-gpu run lanes test check bench bench-network gpu proto lock

help:
	@echo "make venv    install everything that is locked into .venv (again only when it changed)"
	echo "make run     four validators with their executors under load for 90 s, replayed and judged"
	echo "make lanes   execute blocks of real and uniform traffic, check them, print transactions per second"
	echo "make test    run the tests (TEST_ARGS='-m slow' TEST_JOBS=1 for the slow ones)"
	echo "make check   lint, types, import directions, spelling"
	echo "make bench   run every workload and kernel, keep the figures, compare with the last ones kept"
	echo "make bench-network  find how much four validators finalize, and how soon at 80 % of it"
	echo "make venv-gpu  install what a host with a GPU needs into .venv-gpu (requirements-gpu.lock)"
	echo "make gpu     every test and benchmark that needs a GPU, figures kept in bench/results"
	echo "make proto   write the protobuf code of the Engine API again, after engine.proto changed"
	echo "make lock    resolve the dependencies again (maintainers)"

# The stamp names what was installed, for which folder: a virtual environment that was copied or
# moved with its folder does not work and is installed again.
venv:
	@want="$$( (pwd; cat requirements.lock pyproject.toml) | sha256sum | cut -d ' ' -f 1)"
	if [ "$$(cat $(STAMP) 2>/dev/null || true)" = "$$want" ]; then exit 0; fi
	supported='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
	if ! $(BIN)/python -c "$$supported" 2>/dev/null; then
	    chosen=""
	    for candidate in $(PYTHON) python3 python3.12 python3.11; do
	        if "$$candidate" -c "$$supported" 2>/dev/null; then chosen="$$candidate"; break; fi
	    done
	    if [ -z "$$chosen" ]; then
	        echo "make venv: no Python 3.11 or 3.12 with the venv module was found." >&2
	        echo "  python3 here is: $$(python3 --version 2>&1 || true)" >&2
	        echo "  Install one (on Debian and Ubuntu: python3.12 and python3.12-venv, or 3.11)," >&2
	        echo "  or name one that lies elsewhere: make venv PYTHON=/path/to/python3.12" >&2
	        exit 1
	    fi
	    echo "make venv: creating .venv with $$("$$chosen" --version)"
	    "$$chosen" -m venv --clear .venv
	fi
	echo "make venv: installing what requirements.lock lists"
	rm -f $(STAMP)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	echo "$$want" > $(STAMP)
	$(BIN)/python -m $(WARM)

# The same for a host with a GPU, beside .venv: nothing of it is installed on any other.
venv-gpu: venv
	@want="$$( (pwd; cat requirements-gpu.lock pyproject.toml) | sha256sum | cut -d ' ' -f 1)"
	if [ "$$(cat .venv-gpu/installed 2>/dev/null || true)" = "$$want" ]; then exit 0; fi
	echo "make venv-gpu: installing what requirements-gpu.lock lists"
	$(BIN)/python -m venv --clear .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --require-hashes -r requirements-gpu.lock
	.venv-gpu/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	echo "$$want" > .venv-gpu/installed
	.venv-gpu/bin/python -m $(WARM)

run: venv
	@$(BIN)/python bench/devnet.py --validators 4 --duration 90 --rate 5000 --expect-heights 150 \
	    --home build/devnet --json build/devnet.json $(RUN_ARGS)

lanes: venv
	@$(BIN)/python bench/lanes.py --workload $(WORKLOAD) --check $(LANES_ARGS)

bench-network: venv
	@$(BIN)/python bench/network_rate.py --home build/network_rate --json build/network_rate.json \
	    $(RUN_ARGS)

test: venv
	@$(BIN)/python -m pytest -q -n $(patsubst 1,0,$(TEST_JOBS)) --dist loadfile $(TEST_ARGS)

check: venv
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: venv
	@mkdir -p build
	$(BIN)/python bench/lanes.py --workload all --json build/lanes.new.json
	if [ -e build/lanes.json ]; then
	    $(BIN)/python bench/report.py build/lanes.json build/lanes.new.json
	fi
	mv build/lanes.new.json build/lanes.json
	$(BIN)/python bench/kernels.py --json build/kernels.json

gpu: $(if $(GPU_PYTHON),,venv-gpu)
	@$(or $(GPU_PYTHON),.venv-gpu/bin/python) bench/gpu.py

proto: venv
	@$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. engine_api/tos/engine.proto

lock:
	@uv="$$(command -v $(CURDIR)/$(BIN)/uv || command -v uv || true)"
	if [ -z "$$uv" ]; then
	    echo "make lock: uv is not installed; type: $(BIN)/python -m pip install uv" >&2
	    exit 1
	fi
	settings="--quiet --universal --generate-hashes --python-version 3.11 --no-header"
	"$$uv" pip compile $$settings --extra bench --extra dev \
	    --output-file requirements.lock pyproject.toml $(LOCK_ARGS)
	"$$uv" pip compile $$settings --extra bench --extra dev --extra gpu \
	    --constraint requirements.lock --output-file requirements-gpu.lock pyproject.toml $(LOCK_ARGS)
	if grep -nE '://|--(extra-)?index' requirements.lock requirements-gpu.lock; then
	    echo "make lock: the lines above name a host; a lock must work with any index" >&2
	    exit 1
	fi
