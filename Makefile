# make quickstart: distill, export and bench a small model.
# make test: all tests. make test-fast: all but the slow ones. make docs: the documentation site.
# make audit: known vulnerabilities of the locked packages.
# make peers: an environment for each library that benchmarks/studies/peers.py compares.
# make test-soak: the pages of the documentation, 10,000 mutations of a bundle, 50 kills
# and 25 full disks.
PYTHON ?= python3
OLD_PYTHON := kdedge needs Python 3.11 or newer: make PYTHON=python3.12 ...
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .venv/bin/uv)
BIN := .venv/bin
# As many test files at once as there are cores, but at most four; each uses one thread. Tests start
# hundreds of processes: their bytecode is kept, even where PYTHONDONTWRITEBYTECODE is set.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive \
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: quickstart test test-fast test-soak lint types reference docs audit links peers lock clean

quickstart: .venv/.ready
	$(BIN)/kdedge run configs/quickstart.toml

test: .venv/.ready
	$(PYTEST) --no-loadscope-reorder

test-fast: .venv/.ready
	$(PYTEST) -m "not slow and not soak"

test-soak: .venv/.ready
	$(PYTEST) -m soak tests/docs tests/examples tests/runtime tests/integration

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types

types: .venv/.ready links
	cd .venv/types && ../bin/mypy \
		--config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

# The pages of recipe keys and commands, from the code. A test compares them with it.
reference: .venv/.ready
	$(BIN)/python docs/hooks/write_reference.py

# The documentation site, in build/docs. A broken link or an undocumented page is an error.
docs: .venv/.docs links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Known vulnerabilities of the locked packages; needs the network. On GitHub, no answer is an error.
audit: .venv/.audit
	$(BIN)/python .ci/audit.py

# mypy and mkdocstrings follow folders, not setuptools' package-dir: links show them export/ and
# benchmarks/ inside kdedge/.
links:
	rm -rf .venv/types && mkdir -p .venv/types/kdedge
	ln -s $(CURDIR)/kdedge/* $(CURDIR)/export $(CURDIR)/benchmarks .venv/types/kdedge/

.venv/.docs: .venv/.ready configs/locks/docs.txt
	$(UV) pip install --quiet --python .venv/bin/python -r configs/locks/docs.txt
	touch $@

.venv/.audit: .venv/.ready configs/locks/audit.txt
	$(UV) pip install --quiet --python .venv/bin/python -r configs/locks/audit.txt
	touch $@

.venv/.ready: configs/locks/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(OLD_PYTHON)")'
	if [ "$(UV)" = .venv/bin/uv ]; then \
		$(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet uv; \
	else \
		$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv; \
	fi
	$(UV) pip install --quiet --compile-bytecode --python .venv/bin/python -r configs/locks/dev.txt
	$(UV) pip install --quiet --python .venv/bin/python --no-deps -e .
	touch $@

# Where a library cannot be installed, why.txt says so, and the study's table repeats it.
PEERS := $(notdir $(basename $(wildcard configs/locks/peers/*.in)))
peers: .venv/.ready $(PEERS:%=.venv/peers/%/.ready)

.venv/peers/%/.ready: configs/locks/peers/%.txt
	mkdir -p $(@D) && rm -f $@
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(@D)
	@if $(UV) pip sync --quiet --python $(@D)/bin/python $< 2> $(@D)/why.txt; \
		then touch $@; else echo "$*: not installed"; cat $(@D)/why.txt; fi

# Write the lists of exact versions and their hashes from pyproject.toml.
LOCK = $(UV) pip compile --quiet --universal --no-header --no-annotate --generate-hashes \
	--python-version 3.11
DEV_LOCK = --constraint configs/locks/dev.txt
DEV_EXTRAS = --extra train --extra tune --extra sign --extra serve --extra sbom \
	--extra quickstart --extra dev
lock:
	$(LOCK) $(DEV_EXTRAS) pyproject.toml -o configs/locks/dev.txt
	$(LOCK) $(DEV_LOCK) pyproject.toml -o configs/locks/device.txt
	$(LOCK) $(DEV_LOCK) --extra train pyproject.toml -o configs/locks/train.txt
	$(LOCK) $(DEV_LOCK) --extra serve pyproject.toml -o configs/locks/serve.txt
	$(LOCK) $(DEV_LOCK) --extra docs pyproject.toml -o configs/locks/docs.txt
	$(LOCK) $(DEV_LOCK) --group audit -o configs/locks/audit.txt
	$(LOCK) configs/locks/optimum.in -o configs/locks/optimum.txt
	for peer in $(PEERS); do \
		$(LOCK) configs/locks/peers/$$peer.in -o configs/locks/peers/$$peer.txt || exit 1; \
	done

clean:
	rm -rf .venv runs build *.egg-info
