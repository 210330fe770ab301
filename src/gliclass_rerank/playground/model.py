"""The model of the page: loaded once, shared by all tabs and all visitors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias, cast

import streamlit as st

from gliclass_rerank.errors import GLiClassRerankError
from gliclass_rerank.playground.render import model_lines, problem
from gliclass_rerank.scorers.load import Backend, LoadedScorer, load_scorer
from gliclass_rerank.types import ModelInfo

ModelKey: TypeAlias = tuple[str, ...]
"""Part of the cache key of results that identifies the model."""


def choose_model(model: str, backend: str, device: str, *, fixed: bool) -> LoadedScorer | None:
    """Show the model field in the sidebar and load the model. On failure show the error and return None.

    Args:
        model: initial model.
        fixed: whether the field is read-only.
    """
    with st.sidebar:
        st.title("gliclass-rerank", anchor=False)
        name = st.text_input(
            "Model",
            model,
            disabled=fixed,
            help='"mini" (bundled), a checkpoint folder, a hub id, or the URL of a service.',
        )
    try:
        scorer = _loaded(model if fixed else name.strip(), backend, device)
    except GLiClassRerankError as error:
        st.html(problem(str(error)))
        return None
    st.sidebar.html(model_lines(scorer.info))
    return scorer


def key_of(info: ModelInfo) -> ModelKey:
    """Return the fields that distinguish one model from another."""
    return info.name, info.revision, info.device, info.dtype


@contextmanager
def problems_shown() -> Iterator[None]:
    """Show a `GLiClassRerankError` of the block on the page, and continue after the block."""
    try:
        yield
    except GLiClassRerankError as error:
        st.html(problem(str(error)))


@st.cache_resource(max_entries=2, show_spinner="Loading the model …")
def _loaded(model: str, backend: str, device: str) -> LoadedScorer:
    return load_scorer(model, backend=cast(Backend, backend), device=device)
