"""The model of a component: a name that is loaded on first use, or a loaded scorer."""

from __future__ import annotations

from gliclass_rerank import Scorer
from gliclass_rerank.scorers.lazy import LazyScorer


def with_shared_scorer(data: object, name_field: str) -> object:
    """Return a component's fields with ``scorer`` made shareable, and its name in ``name_field``, if one is given."""
    given = data.get("scorer") if isinstance(data, dict) else None
    if not isinstance(data, dict) or given is None:
        return data
    shared = given if isinstance(given, LazyScorer) else LazyScorer("", given)
    return {**data, "scorer": shared, name_field: shared.model}


def lazy_scorer(scorer: Scorer | None, model: str) -> LazyScorer:
    """Return the scorer that `with_shared_scorer` left, or one that loads ``model`` on first use."""
    return scorer if isinstance(scorer, LazyScorer) else LazyScorer(model)
