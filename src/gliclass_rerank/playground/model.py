"""The model of the page: loaded once, shared by all tabs and by all who look at the page."""

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
"""What results are remembered by, with their inputs."""


def choose_model(model: str, backend: str, device: str, *, fixed: bool) -> LoadedScorer | None:
    """Ask for the model in the sidebar, and load it; None, with the error on the page, if that cannot be done.

    Args:
        model: what is loaded at first.
        fixed: it can be seen, and not changed.
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
    """What tells one model from another."""
    return info.name, info.revision, info.device, info.dtype


@contextmanager
def problems_shown() -> Iterator[None]:
    """Show an error of ours on the page, where it arises, and go on after the block."""
    try:
        yield
    except GLiClassRerankError as error:
        st.html(problem(str(error)))


@st.cache_resource(max_entries=2, show_spinner="Loading the model …")
def _loaded(model: str, backend: str, device: str) -> LoadedScorer:
    return load_scorer(model, backend=cast(Backend, backend), device=device)
