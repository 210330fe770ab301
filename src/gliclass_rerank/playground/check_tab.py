"""Tab for fact-checking: the answer coloured by verdict, and the evidence of a chosen claim."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from gliclass_rerank.playground import examples
from gliclass_rerank.playground.model import ModelKey, key_of, problems_shown
from gliclass_rerank.playground.reading import read_passages
from gliclass_rerank.playground.render import VERDICTS, claim_panel
from gliclass_rerank.tasks.fact_check.checker import ClaimVerdict, FactChecker, FactReport
from gliclass_rerank.types import Scorer

HERE = Path(__file__).parent


def show(scorer: Scorer, *, is_open: bool) -> None:
    """Draw the tab. Compute results only if it is the open one."""
    asked, answered = st.columns([2, 3], gap="large")
    with asked, st.form("check", border=False):
        answer = st.text_area("Answer", examples.ANSWER, height=110)
        typed = st.text_area("Evidence: passages, separated by blank lines", examples.EVIDENCE, height=190)
        files = st.file_uploader(
            "Or files: one passage each, or JSON lines",
            accept_multiple_files=True,
            key="check-files",
        )
        only_claims = st.toggle("Skip questions, greetings and headings")
        st.form_submit_button("Check", type="primary")
    if not is_open:
        return
    with answered, problems_shown():
        evidence = read_passages(typed, [(file.name, file.getvalue()) for file in files])
        texts = tuple(passage.text for passage in evidence)
        claims = _checked(scorer, key_of(scorer.info), answer, texts, only_claims).claims
        supported = sum(claim.verdict == "supported" for claim in claims)
        st.caption(f"{supported} of {len(claims)} claims supported. Choose a claim to see its evidence.")
        digest = hashlib.sha256(repr((answer, texts, only_claims)).encode()).hexdigest()[:16]
        chosen = _chosen(answer, claims, key=f"claims-{digest}")
        if claims:
            claim = claims[chosen]
            st.html(claim_panel(claim, evidence[claim.evidence]))


def pieces(answer: str, claims: Sequence[ClaimVerdict]) -> list[dict[str, object]]:
    """Cut the answer at its claims: {"text": ...}, for claims also with their index, verdict and its display name."""
    cut: list[dict[str, object]] = []
    position = 0
    for place, claim in enumerate(claims):
        cut.append({"text": answer[position : claim.start]})
        cut.append({"text": claim.text, "claim": place, "verdict": claim.verdict, "told": VERDICTS[claim.verdict]})
        position = claim.end
    return [*cut, {"text": answer[position:]}]


def _chosen(answer: str, claims: Sequence[ClaimVerdict], *, key: str) -> int:
    """Draw the answer. Return the index of the claim that was chosen last, initially 0."""
    component = st.components.v2.component(
        "gliclass-rerank-claims",
        html="<p></p>",
        css=(HERE / "claims.css").read_text("utf-8"),
        js=(HERE / "claims.js").read_text("utf-8"),
    )
    chosen = st.session_state.get(key, {}).get("claim", 0)
    component(
        key=key,
        data={"pieces": pieces(answer, claims), "chosen": chosen},
        default={"claim": 0},
        on_claim_change=lambda: None,
    )
    return int(chosen)


@st.cache_data(max_entries=16, show_spinner="Checking …", show_time=True)
def _checked(_scorer: Scorer, model: ModelKey, answer: str, evidence: tuple[str, ...], only_claims: bool) -> FactReport:
    return FactChecker(_scorer, only_claims=only_claims).check(answer, evidence)
