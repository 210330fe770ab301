"""`/check`: judge each claim of an answer by evidence."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import FactChecker, Scorer
from gliclass_rerank.tasks.fact_check.checker import SUPPORTED
from gliclass_rerank.tasks.fact_check.claims import Verdict
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import (
    Body,
    Flag,
    Items,
    Reply,
    Share,
    UnreadableOption,
    Usage,
    request_id,
    respond,
    scoring_router,
    usage_of,
)
from gliclass_rerank_service.errors import EmptyError
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

router = scoring_router("check")
EXAMPLE: JsonDict = {
    "answer": "The tower is 330 metres tall. It was built in 1999.",
    "evidence": ["The Eiffel Tower, finished in 1889, is 330 metres tall."],
    "filter": True,
}


class CheckBody(Body):
    """Arguments of `gliclass_rerank.FactChecker`."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    answer: str = Field(description="The text to check. Each sentence is a claim.")
    evidence: str | Items[str]
    threshold: Share | None = Field(default=None, description="Minimum support of a supported claim. Default: 0.5.")
    refute_threshold: Share | None = Field(
        default=None, description="Minimum refutation of a refuted claim. Default: 0.5."
    )
    only_claims: Flag | None = Field(default=None, description="Skip sentences without a claim.")
    filter: Flag | None = Field(
        default=None, description="Also return the answer without the claims that are not kept."
    )
    keep: Items[Verdict] | None = Field(default=None, description='Verdicts to keep. Default: ["supported"].')
    unreadable: UnreadableOption = None


class Claim(Reply):
    """Verdict on a claim, see `gliclass_rerank.ClaimVerdict`."""

    text: str
    start: int = Field(description="Code points in the answer, up to `end`.")
    end: int
    verdict: Verdict
    support: float
    refute: float
    evidence: int = Field(description="Index of the deciding passage.")
    window: tuple[int, int] | None
    readable: bool = Field(description="Whether the model knows words of the claim and of some evidence.")
    parts: int = Field(description="Number of parts in which a claim too long for the model was read. Otherwise 1.")


class CheckReply(Reply):
    """Verdicts in the order of the answer."""

    id: str
    model: str
    supported: float = Field(description="Fraction of supported claims. 1 without claims.")
    passed: bool
    claims: list[Claim]
    filtered: str | None = Field(description="The filtered answer, if `filter` is set.")
    usage: Usage


def checker_of(body: CheckBody, scorer: Scorer) -> FactChecker:
    """The checker described by a body."""
    return FactChecker(
        scorer,
        threshold=0.5 if body.threshold is None else body.threshold,
        refute_threshold=0.5 if body.refute_threshold is None else body.refute_threshold,
        only_claims=bool(body.only_claims),
        unreadable=body.unreadable or "flag",
    )


@router.post("/check", responses={200: {"model": CheckReply}}, summary="Check an answer against evidence")
async def check(body: CheckBody, request: Request) -> Response:
    """Judge each sentence of the answer as supported, refuted, or without enough information."""
    evidence = [body.evidence] if isinstance(body.evidence, str) else body.evidence
    if not evidence:
        raise EmptyError("evidence: expected at least one passage, got none")
    (report,) = await run_task(
        request,
        checker_of(body, service_of(request).scorer).plan([(body.answer, evidence)]),
        texts=len(evidence),
        tokens=estimate_tokens_for(evidence, [body.answer]),
        model=body.model,
    )
    filtered = report.filter(body.answer, keep=SUPPORTED if body.keep is None else body.keep) if body.filter else None
    reply = CheckReply(
        id=request_id(request),
        model=service_of(request).scorer.info.name,
        supported=report.supported,
        passed=report.passed,
        claims=[Claim.model_validate(asdict(claim)) for claim in report.claims],
        filtered=filtered,
        usage=usage_of(stats_of(request.scope)),
    )
    return respond(reply)
