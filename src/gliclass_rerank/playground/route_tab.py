"""Tab for routing: the chosen routes of each query, and the probability of each route."""

from __future__ import annotations

import streamlit as st

from gliclass_rerank.playground import examples
from gliclass_rerank.playground.model import ModelKey, key_of, problems_shown
from gliclass_rerank.playground.reading import read_lines_of, read_routes
from gliclass_rerank.playground.render import decision_block
from gliclass_rerank.tasks.routing.router import Route, RouteDecision, Router
from gliclass_rerank.types import Scorer


def show(scorer: Scorer, *, is_open: bool) -> None:
    """Draw the tab. Compute results only if it is the open one."""
    asked, answered = st.columns([2, 3], gap="large")
    with asked, st.form("route", border=False):
        typed = st.text_area(
            "Routes, one per line (name: description)",
            examples.ROUTES,
            height=270,
            help="Indented lines are example queries of the route above them.",
        )
        queries = st.text_area("Queries, one per line", examples.QUERIES, height=110)
        threshold = st.slider("Minimum probability of a route", 0.0, 1.0, 0.5, 0.01)
        multi = st.toggle("Allow several routes")
        st.form_submit_button("Route", type="primary")
    if not is_open:
        return
    with answered, problems_shown():
        asked_for = tuple(read_lines_of(queries))
        routes = tuple(read_routes(typed))
        decisions = _routed(scorer, key_of(scorer.info), routes, asked_for, threshold, multi)
        for query, decision in zip(asked_for, decisions, strict=True):
            st.html(decision_block(query, decision, threshold))


@st.cache_data(max_entries=16, show_spinner="Routing …", show_time=True)
def _routed(
    _scorer: Scorer, model: ModelKey, routes: tuple[Route, ...], queries: tuple[str, ...], threshold: float, multi: bool
) -> list[RouteDecision]:
    return Router(routes, _scorer, threshold=threshold).route_many(queries, multi=multi)
