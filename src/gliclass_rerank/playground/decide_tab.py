"""Tab for decisions: questions about a text or a JSON value, and the probability of each possible answer."""

from __future__ import annotations

import streamlit as st

from gliclass_rerank.playground import examples
from gliclass_rerank.playground.model import ModelKey, key_of, problems_shown
from gliclass_rerank.playground.reading import read_decisions, read_state
from gliclass_rerank.playground.render import answer_block
from gliclass_rerank.tasks.decide.answers import Answer
from gliclass_rerank.tasks.decide.decider import Decider
from gliclass_rerank.types import Scorer

HELP = """A line is a question, to be answered by yes or no. Indented lines below it are options, `name: description`.
One indented line with `<` is a scale: `calm < annoyed < furious`. JSON works too, as in questions.json of the command
line."""


def show(scorer: Scorer, *, is_open: bool) -> None:
    """Draw the tab. Compute results only if it is the open one."""
    asked, answered = st.columns([2, 3], gap="large")
    with asked, st.form("decide", border=False):
        state = st.text_area("Text or JSON", examples.STATE, height=110)
        typed = st.text_area("Questions, one per line", examples.QUESTIONS, height=270, help=HELP)
        st.form_submit_button("Decide", type="primary")
    if not is_open:
        return
    with answered, problems_shown():
        for name, answer in _decided(scorer, key_of(scorer.info), state, typed).items():
            st.html(answer_block(name, answer))


@st.cache_data(max_entries=16, show_spinner="Deciding …", show_time=True)
def _decided(_scorer: Scorer, model: ModelKey, state: str, questions: str) -> dict[str, Answer]:
    return Decider(_scorer).decide(read_state(state), read_decisions(questions))
