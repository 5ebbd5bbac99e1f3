# Everything that is done with this checkout. `make` alone lists the targets.
#
# Needs git, make and Python 3.11 or newer. All that is installed goes into .venv/ and .venv-s3/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
VENV_S3 := .venv-s3
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# The folders that lint looks at; some checkouts have no bench.
SOURCES := $(wildcard proxy tests bench tools)
ARGS ?=

# A home directory that cannot be written to is no reason to fail.
ifeq ($(shell mkdir -p "$${XDG_CACHE_HOME:-$$HOME/.cache}" 2>/dev/null && test -w "$${XDG_CACHE_HOME:-$$HOME/.cache}" && echo yes),)
export XDG_CACHE_HOME := $(CURDIR)/.cache
endif
# The environment that happens to be active is not the one that is meant here.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where the cache lies on another disk, copies are made; that is nothing to warn about.
export UV_LINK_MODE ?= copy
# A company's own certificate authority is known to the system, not to uv.
export UV_SYSTEM_CERTS ?= 1

# $(call install,venv,requirements): hash-checked; pip is asked where uv does not get through, for
# instance because only pip was told of a package mirror.
install = $(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes -r $(2) \
	|| $(BIN)/python -m pip --python $(1)/bin/python install --quiet --require-hashes -r $(2)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) \
		| sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

# -- running ---------------------------------------------------------------------------------

.PHONY: run
run: $(VENV)/.runtime ## install what running needs, then run `firstview demo` (ARGS="--help")
	@exec $(BIN)/firstview demo $(ARGS)

# -- setting up ------------------------------------------------------------------------------

# Debian keeps ensurepip, which venv needs, in a package of its own.
define PYTHON_VENV_PACKAGE
import sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
print(sysconfig.get_path("stdlib") + "/ensurepip/__init__.py:python" + version + "-venv")
endef
export PYTHON_VENV_PACKAGE

# Stamps: each is newer than the files it was made from, so nothing is installed twice.
$(VENV)/.bootstrap: requirements/bootstrap.txt
	@test -n "$(PYTHON)" || { echo "firstview needs Python 3.11 or newer on PATH" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
		rm -rf $(VENV); \
		tools/system-packages "$$($(PYTHON) -c "$$PYTHON_VENV_PACKAGE")"; \
		$(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@

$(VENV)/.package: $(VENV)/.bootstrap pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation \
		--editable .
	@touch $@

$(VENV)/.runtime: $(VENV)/.bootstrap $(VENV)/.package requirements/runtime.txt
	@echo "installing requirements/runtime.txt"
	@$(call install,$(VENV),requirements/runtime.txt)
	@touch $@

# dev.txt holds all of runtime.txt too, hence both stamps.
$(VENV)/.dev: $(VENV)/.bootstrap $(VENV)/.package requirements/dev.txt requirements/runtime.txt
	@echo "installing requirements/dev.txt"
	@$(call install,$(VENV),requirements/dev.txt)
	@touch $(VENV)/.runtime $@

# The test S3 server is allowed to be missing: the tests that need it are then skipped, loudly.
$(VENV_S3)/.installed: $(VENV)/.bootstrap requirements/s3server.txt
	@echo "installing requirements/s3server.txt"
	@rm -rf $(VENV_S3)
	@{ $(BIN)/uv venv --quiet --python $(BIN)/python $(VENV_S3) \
		&& { $(call install,$(VENV_S3),requirements/s3server.txt); } && touch $@; } \
		|| echo "WARNING: no S3 server for the tests; those that need it are skipped" >&2

.PHONY: setup
setup: $(VENV)/.dev $(VENV_S3)/.installed ## install what development needs, into .venv and .venv-s3

# program:package, as tools/system-packages reads it.
TEST_PROGRAMS := ffmpeg:ffmpeg ffprobe:ffmpeg chromium:chromium initdb:postgresql nginx:nginx \
	curl:curl wget:wget promtool:prometheus systemd-analyze:systemd kubectl:kubernetes-client \
	node:nodejs
SOAK_PROGRAMS := buildah:buildah mmdebstrap:mmdebstrap
BENCH_PROGRAMS := nginx:nginx wrk:wrk initdb:postgresql varnishd:varnish \
	traffic_server:trafficserver

.PHONY: system
system: ## install the system packages that tests need, where apt allows it
	@tools/system-packages $(TEST_PROGRAMS)

.PHONY: system-soak
system-soak: system ## install the system packages that building the image needs too
	@tools/system-packages $(SOAK_PROGRAMS)

.PHONY: system-bench
system-bench: ## install the system packages that the benchmarks need
	@tools/system-packages $(BENCH_PROGRAMS)

# -- checking --------------------------------------------------------------------------------

.PHONY: test
test: setup system ## install everything, lint, run all tests (ARGS="-k name")
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy --strict, and the direction of imports
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/mypy --no-error-summary $(SOURCES)
	@$(BIN)/lint-imports >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
	@echo "lint: all clean"

.PHONY: format
format: $(VENV)/.dev ## let ruff format and repair what it can
	@$(BIN)/ruff check --fix --quiet $(SOURCES) || true
	@$(BIN)/ruff format $(SOURCES)

.PHONY: reference
reference: $(VENV)/.dev ## write docs/reference/ anew from the code
	@$(BIN)/python -m tools.reference

.PHONY: bench
bench: $(VENV)/.dev $(VENV_S3)/.installed system-bench ## measure side by side with nginx, Varnish and Traffic Server (ARGS="--help")
	@$(BIN)/python -m bench $(ARGS)

.PHONY: scale
scale: $(VENV)/.dev ## measure with a million generations and a million cached clips (ROWS=1000000)
	@SCALE_ROWS=$(or $(ROWS),1000000) $(BIN)/python -m pytest -n0 -s \
		tests/integration/test_many_generations.py tests/integration/test_large_cache.py $(ARGS)

.PHONY: soak
soak: setup system-soak ## run the tests that take long: storms with kills, outages, restarts, pods, the image built whole (ARGS="-k image")
	@$(BIN)/python -m pytest -n0 -s -m soak $(ARGS)

# -- the image -------------------------------------------------------------------------------

IMAGE ?= firstview

.PHONY: image
image: ## build the image with docker, podman or buildah (IMAGE=name:tag PYTHON_IMAGE=base)
	@tools/image $(IMAGE) $(ARGS)

# -- keeping up ------------------------------------------------------------------------------

# One lock for Python 3.11 to 3.14. The hashes say which files are meant; where they come from is
# for the machine's own configuration to say, so no lock names an index.
compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate $(if $(UPGRADE),--upgrade) pyproject.toml

.PHONY: lock
lock: $(VENV)/.bootstrap ## lock the requirements anew (UPGRADE=1 takes the newest versions)
	@$(compile) -o requirements/dev.txt --group dev --extra otel
	@$(compile) -o requirements/runtime.txt -c requirements/dev.txt
	@$(compile:pyproject.toml=) -c requirements/dev.txt -o requirements/bootstrap.txt --group bootstrap
	@$(compile:pyproject.toml=) -o requirements/s3server.txt --group s3server

.PHONY: clean
clean: ## remove everything that make has made
	rm -rf $(VENV) $(VENV_S3) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
		.ruff_cache build dist
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
