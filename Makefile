# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
UV := .uv/bin/uv
# Processes that share the tests, a file at a time, in the order of tests/conftest.py.
TEST_WORKERS ?= 2
PY := .venv/bin/python
LOCK_FLAGS := --group dev --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --quiet

.PHONY: install demo test lint lock clean

install: .venv/.installed

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet "uv>=0.5"

.venv/.installed: requirements.lock pyproject.toml | .uv/bin/uv
	test -x $(PY) || $(UV) venv --quiet --python $(PYTHON) .venv
	UV_COMPILE_BYTECODE_TIMEOUT=0 VIRTUAL_ENV=.venv $(UV) pip sync --compile-bytecode --quiet requirements.lock
	VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --editable .
	touch $@

demo: install
	.venv/bin/sapiens2 run

test: install
	$(PY) -m pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder tests --ignore=tests/acceptance

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

lock: | .uv/bin/uv
	$(UV) pip compile pyproject.toml $(LOCK_FLAGS) --output-file requirements.lock

clean:
	rm -rf .venv .uv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
