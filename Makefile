# make demo: from a clone to the result. make test: everything that CI tests. Both make .venv first (make setup);
# what is there already is not made again.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# PYTHON=/path/to/python names the one to use; otherwise scripts/prerequisites looks for one that will do.
PYTHON ?=
# ARGS="..." is passed on by demo, test, bench and compare.
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq

# What the extension modules are compiled from.
CORE := setup.py $(filter-out %/_native.c %/hot_docs.h,$(wildcard multikernel/_core/build.py multikernel/_core/calls.py \
	multikernel/_core/*.[ch] csrc/*.[ch] csrc/include/multikernel/*.h))
SHELL_SCRIPTS := .ci/run $(wildcard scripts/* csrc/tests/run csrc/model/run)

.PHONY: help setup demo test test-c test-python test-cffi test-sanitized bench bench-c compare lint types check format lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' Makefile | expand -t 10

setup: $(VENV)/.package ## make .venv: the package, its C core, and the tools of demo and test

demo: setup ## run the demo (ARGS="--cpus 0-1")
	@$(VENV)/bin/multikernel demo $(ARGS)

# The Python tests mostly wait for processes: all else goes beside them.
test: setup ## run every test, C and Python (ARGS="-k ring" for pytest)
	@scripts/side-by-side '$(MAKE) test-python' '$(MAKE) test-c test-cffi'

test-python: setup
	@$(PY) -m pytest $(ARGS)

test-cffi: setup # those of rings again, without the extension
	@[ -n "$(ARGS)" ] || MULTIKERNEL_HOT_CALLS=cffi $(PY) -m pytest -q tests/core tests/shm

test-c: ## run the C core's tests: plain, with ASan and UBSan, with TSan; and its models
	@scripts/prerequisites $(PYTHON) >/dev/null
	@$(MAKE) -C csrc test model

# A copy of the package with sanitizers in its modules; what a process inherits and where it is meant to fault is left
# to the system.
test-sanitized: setup ## run the Python tests of rings with ASan and UBSan in the binding, too
	@mkdir -p build; MULTIKERNEL_SANITIZE=address,undefined $(PY) setup.py -q build \
		--build-base build/sanitized-objects --build-lib build/sanitized >build/sanitized.log 2>&1 || \
		{ cat build/sanitized.log; exit 1; }
	@LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0 PYTHONPATH=$(CURDIR)/build/sanitized \
		$(VENV)/bin/pytest -q tests/core tests/shm tests/stress/test_ring_mixed.py $(ARGS)

bench: setup ## measure, beside os.pipe and multiprocessing
	@$(PY) -m pytest benches --benchmark-only $(ARGS)

bench-c: ## measure the C core, beside other rings that are installed (ARGS=records)
	@$(MAKE) -C csrc bench

compare: setup $(VENV)/.peers ## measure beside the peers, which are installed first (ARGS="M6 M9 --json run.json")
	@$(PY) -m benches.compare $(ARGS)

lint: setup ## check Python and C sources for style and likely bugs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@git ls-files -co --exclude-standard 'csrc/*.[ch]' 'multikernel/_core/hot*.[ch]' multikernel/_core/ends.h | xargs $(VENV)/bin/clang-format --dry-run -Werror
	@$(MAKE) -C csrc analyze
	@for script in $(SHELL_SCRIPTS); do bash -n "$$script" || exit; done

types: setup ## check the package's types
	@$(PY) -m mypy

check: ## what CI runs
	@.ci/run

format: setup ## bring Python and C sources into form
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix --select I .
	@git ls-files -co --exclude-standard 'csrc/*.[ch]' 'multikernel/_core/hot*.[ch]' multikernel/_core/ends.h | xargs $(VENV)/bin/clang-format -i

lock: ## remake requirements-dev.lock (of Python 3.11, so that it is good for all later ones)
	@scripts/lock requirements-dev.lock

clean: ## remove what make has made, .venv too
	@$(MAKE) -C csrc clean
	@rm -rf $(VENV) build dist *.egg-info multikernel/_core/*.so multikernel/_core/hot_docs.h .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# A .venv is made anew when its Python is gone or when the checkout was moved or copied: it holds absolute paths.
ifneq ($(shell test -x $(PY) && cat $(VENV)/.made 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.made
endif

$(VENV)/.made:
	@set -e; \
	python=$$(scripts/prerequisites $(PYTHON)); \
	echo "setup: making $(VENV) with $$python ($$($$python -V))"; \
	"$$python" -m venv --clear $(VENV); \
	pwd > $@

$(VENV)/.requirements: requirements-dev.lock $(VENV)/.made
	@echo "setup: installing what requirements-dev.lock pins"
	@$(PIP) install -r requirements-dev.lock
	@touch $@

# Editable: the sources in the checkout are what runs, and only the C core has to be built again when it changed.
$(VENV)/.package: pyproject.toml $(CORE) $(VENV)/.requirements
	@echo "setup: building the C core and installing multikernel"
	@rm -f multikernel/_core/*.so # one built otherwise under another name would be imported in its place
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

# The peers are compared with and nothing else: `make setup` does without them, and so does a run that lacks one.
$(VENV)/.peers: pyproject.toml $(VENV)/.package
	@echo "compare: installing the peers"
	@$(PIP) install --no-build-isolation -e '.[peers]'
	@touch $@
