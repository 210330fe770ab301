"""Tab for classification: the labels of a text, flat or nested."""

from __future__ import annotations

import streamlit as st

from gliclass_rerank.playground import examples
from gliclass_rerank.playground.model import ModelKey, key_of, problems_shown
from gliclass_rerank.playground.reading import read_labels
from gliclass_rerank.playground.render import labels_table
from gliclass_rerank.tasks.classify import Classification, Classifier
from gliclass_rerank.tasks.nested_labels import Labels, label_sets
from gliclass_rerank.types import Scorer

SEVERAL, ONE = "Any number of labels", "Exactly one label"


def show(scorer: Scorer, *, is_open: bool) -> None:
    """Draw the tab. Compute results only if it is the open one."""
    asked, answered = st.columns([2, 3], gap="large")
    with asked, st.form("classify", border=False):
        text = st.text_area("Text", examples.TEXT, height=110)
        typed = st.text_area(
            "Labels, one per line",
            examples.LABELS,
            height=270,
            help="Indented labels belong to the label above them.",
        )
        multi = st.radio("How many labels may apply", (SEVERAL, ONE), horizontal=True) == SEVERAL
        threshold = st.slider(
            "Minimum probability of a label", 0.0, 1.0, 0.5, 0.01, help="With exactly one label, the likeliest applies."
        )
        st.form_submit_button("Classify", type="primary")
    if not is_open:
        return
    with answered, problems_shown():
        labels = read_labels(typed)
        found = _classified(scorer, key_of(scorer.info), text, labels, multi, threshold)
        chosen = {label.index for label in found.labels}
        paths = label_sets(labels, 1)[0].paths
        st.html(labels_table(paths, found.scores, chosen, threshold if multi else None))
        st.caption(
            f"{len(chosen)} of {len(paths)} labels apply." if chosen else "No label reaches the minimum probability."
        )


@st.cache_data(max_entries=16, show_spinner="Classifying …", show_time=True)
def _classified(
    _scorer: Scorer, model: ModelKey, text: str, labels: Labels, multi: bool, threshold: float
) -> Classification:
    return Classifier(_scorer).classify(text, labels, multi_label=multi, threshold=threshold)
