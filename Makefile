PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo check lint test oldest conformance wheel release bench docs

install: $(BIN)/pytest

$(BIN)/pytest: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

demo: install
	$(BIN)/gliclass-rerank demo

check: lint test

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install
	$(BIN)/pytest -n auto -m "not gpu and not ray and not long"

# LlamaIndex and LangChain as old as the extras in pyproject.toml allow.
FRAMEWORKS := (llama-index-core|langchain-(core|classic|tests))
OLDEST = $(shell grep -oE '"$(FRAMEWORKS)>=[0-9.]+' pyproject.toml | tr -d '"' | sed 's/>=/==/')

oldest:
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/pip install --quiet --upgrade pip
	build/oldest/bin/pip install --quiet torch==2.13.0
	build/oldest/bin/pip install --quiet -e ".[export,llama-index,langchain]" $(OLDEST) hypothesis pytest pytest-timeout
	build/oldest/bin/pytest tests/test_llama_index.py tests/test_langchain.py tests/test_migration.py tests/test_contract.py

# The real clients against the real service; the README's table of them is made from this.
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
