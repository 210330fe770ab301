"""The page, run by `streamlit run`."""

from __future__ import annotations

import argparse
from pathlib import Path

import streamlit as st

from gliclass_rerank.playground import check_tab, classify_tab, decide_tab, rerank_tab, route_tab
from gliclass_rerank.playground.model import choose_model

STYLE = Path(__file__).with_name("style.css")
TABS = {
    "Rerank": rerank_tab,
    "Route": route_tab,
    "Fact-check": check_tab,
    "Classify": classify_tab,
    "Decide": decide_tab,
}


def page(model: str = "mini", backend: str = "auto", device: str = "auto", *, fixed_model: bool = False) -> None:
    """Draw the page.

    Args:
        model, backend, device: see `load_scorer`.
        fixed_model: whether the model cannot be changed on the page.
    """
    st.set_page_config(page_title="gliclass-rerank", layout="wide")
    st.html(STYLE)
    scorer = choose_model(model, backend, device, fixed=fixed_model)
    if scorer is None:
        return
    # All tabs are drawn, since Streamlit drops the input of hidden widgets. Only the open tab runs the model.
    for tab, task in zip(st.tabs(list(TABS), key="task", on_change="rerun"), TABS.values(), strict=True):
        with tab:
            task.show(scorer, is_open=bool(tab.open))


def _main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--model", "--backend", "--device"):
        parser.add_argument(name, required=True)
    parser.add_argument("--fixed-model", action="store_true")
    options = parser.parse_args()
    page(options.model, options.backend, options.device, fixed_model=options.fixed_model)


if __name__ == "__main__":
    _main()
