PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install lock hooks newest demo check lint test coverage matrix oldest conformance wheel release bench docs

install: $(BIN)/pytest

$(BIN)/pytest: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c requirements.lock -e ".[dev]"
	touch $@

# The newest versions that fit pyproject.toml, for every supported Python and platform, as constraints for pip.
LOCK_HEADER := \# Made by "make lock" from pyproject.toml: constraints for pip, on every supported Python and platform.

lock:
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.10 --extra dev --upgrade \
	  --no-header --no-annotate --output-file build/requirements.lock pyproject.toml
	(echo '$(LOCK_HEADER)'; cat build/requirements.lock) >requirements.lock

demo: install
	$(BIN)/gliclass-rerank demo

check: lint test

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z | xargs -0 $(BIN)/codespell

test: install
	$(BIN)/pytest -n auto -m "not gpu and not ray and not long"

# The same checks before each commit (.pre-commit-config.yaml).
hooks: install
	$(BIN)/pre-commit install

# Lines and branches that the suite runs, as a table and in build/coverage; there is no threshold.
coverage: install
	$(BIN)/pytest -n auto -m "not gpu and not ray and not long" --cov --cov-report term --cov-report html:build/coverage

# The suite on every supported Python that this machine has.
matrix:
	@for python in python3.10 python3.11 python3.12 python3.13; do \
	  if ! command -v $$python >/dev/null; then echo "$$python: not on this machine"; continue; fi; \
	  $(MAKE) test PYTHON=$$python VENV=build/$$python || exit 1; \
	done

SHOWN := "^(torch|transformers|gliclass|onnxruntime|llama-index-core|langchain-core) "

# The test suite with the newest version of everything, without the lock. torch stays at the build that [dev] names.
newest:
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/pip install --quiet --upgrade pip
	build/newest/bin/pip install --quiet -e ".[dev]"
	build/newest/bin/python --version && build/newest/bin/pip list | grep -E $(SHOWN)
	build/newest/bin/pytest -n auto -m "not gpu and not ray and not long"

# What upstream, LlamaIndex and LangChain offer is tried as old as the extras in pyproject.toml allow.
TRIED := (gliclass|transformers|llama-index-core|langchain-(core|classic|tests))
OLDEST = $(shell grep -oE '"$(TRIED)>=[0-9.]+' pyproject.toml | tr -d '"' | sed 's/>=/==/')

oldest:
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/pip install --quiet --upgrade pip
	build/oldest/bin/pip install --quiet torch==2.13.0
	build/oldest/bin/pip install --quiet -e ".[export,train,llama-index,langchain]" $(OLDEST) hypothesis pytest pytest-timeout
	build/oldest/bin/python --version && build/oldest/bin/pip list | grep -E $(SHOWN)
	build/oldest/bin/pytest tests/integrations/test_llama_index.py tests/integrations/test_langchain.py tests/integrations/test_migration.py tests/laws/test_contract.py \
	  tests/laws/test_parity.py tests/laws/test_invariance.py tests/models/test_upstream.py tests/training/test_training.py

# The real clients against the real service; the table in docs/service.md is made from this.
conformance: install
	$(BIN)/python tests/conformance/run.py --write

wheel: install
	$(BIN)/python -m build --wheel

# What is to be released, built into dist/ and checked; nothing is uploaded. CONTRIBUTING.md has the other steps.
release: install
	$(BIN)/python .ci/release.py

# All of them, into benchmarks/results; those on public sets need GLICLASS_RERANK_DATA.
bench: install
	$(BIN)/gliclass-rerank bench all

# The documentation site, into build/site; nothing is downloaded.
docs: install
	$(BIN)/mkdocs build --strict
