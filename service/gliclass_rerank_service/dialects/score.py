"""`/score` (vLLM) and TEI's `/predict`: scores of pairs of texts, in the order of the pairs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from gliclass_rerank import InputError, Ranked, Reranker
from gliclass_rerank.tasks.rerank import RankOptions
from gliclass_rerank_service.admission import BYTES, bytes_of, estimate_tokens_for
from gliclass_rerank_service.dialects.common import (
    Body,
    Flag,
    Items,
    Refused,
    Reply,
    Usage,
    VllmBody,
    Whole,
    request_id,
    respond,
    scoring_router,
    usage_of,
)
from gliclass_rerank_service.errors import EmptyError
from gliclass_rerank_service.observability.request_stats import stats_of
from gliclass_rerank_service.service import service_of
from gliclass_rerank_service.task_runner import run_task

router = scoring_router("score")
TextOrTexts = str | Items[str]
Pair = tuple[str, str]
LABEL = "relevant"
EXAMPLE: JsonDict = {"queries": "who rises early?", "documents": ["Bakers do.", "It rains."]}


class ScoreBody(VllmBody):
    """Queries and documents: one of each, one query for many documents, or equally many of both."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": "who rises early?", "documents": ["Bakers do.", "It rains."]}]}
    )

    queries: TextOrTexts | None = None
    documents: TextOrTexts | None = None
    text_1: TextOrTexts | None = Field(default=None, description="Older name of queries.")
    text_2: TextOrTexts | None = Field(default=None, description="Older name of documents.")
    instruction: str | None = Field(
        default=None, description="What makes a document relevant, in words. Only for models trained with prompts."
    )
    max_tokens_per_doc: Whole = None
    max_tokens_per_query: Whole = None
    label_token_ids: Annotated[None, Refused("the model generates no tokens")] = None


class PairScore(Reply):
    """The score of one pair, in [0, 1], or a logit if `use_activation` is false."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreReply(Reply):
    """Scores in the order of the pairs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: Usage


class PredictBody(Body):
    """TEI's body: a pair, or a list of pairs. With ``labels`` it is a job."""

    inputs: str | Items[str | Items[str]]
    raw_scores: Flag | None = None
    truncate: Whole = None
    truncation_direction: Whole = None


class Prediction(Reply):
    """A label and its score."""

    score: float
    label: str


class PredictReply(RootModel[list[Prediction] | list[list[Prediction]]]):
    """Predictions of one pair, or a list of these for a batch."""


def pairs_of(body: ScoreBody) -> list[Pair]:
    """Read a body of `/score`.

    Raises:
        EmptyError: no queries or no documents.
        InputError: one side is missing or there twice, or the sides have different lengths.
    """
    queries = _side(body.queries, body.text_1, "queries", "text_1")
    documents = _side(body.documents, body.text_2, "documents", "text_2")
    if len(queries) == 1:
        queries = [queries[0]] * len(documents)
    if len(queries) != len(documents):
        raise InputError(
            f"expected one query, or one for each of the {len(documents)} documents, got {len(queries)} queries"
        )
    return list(zip(queries, documents, strict=True))


def _side(value: TextOrTexts | None, older: TextOrTexts | None, name: str, older_name: str) -> Sequence[str]:
    if value is not None and older is not None:
        raise InputError(f"expected the field {name} or {older_name}, got both; leave one out")
    given = older if value is None else value
    if given is None:
        raise InputError(f"expected the field {name} or {older_name}, got neither")
    if not given and not isinstance(given, str):
        raise EmptyError(f"{name}: expected at least one, got none")
    return [given] if isinstance(given, str) else given


@router.post("/score", responses={200: {"model": ScoreReply}}, summary="Score pairs of texts")
async def score(body: ScoreBody, request: Request) -> Response:
    """Score pairs in vLLM's format. Scores are those of `/rerank`."""
    pairs = pairs_of(body)
    found = await _run(request, pairs, body.model, RankOptions(instruction=body.instruction or None))
    reply = ScoreReply(
        id=request_id(request),
        created=int(time.time()),
        model=service_of(request).scorer.info.name,
        data=[PairScore(index=i, score=one.logit if body.unscaled else one.score) for i, one in enumerate(found)],
        usage=usage_of(stats_of(request.scope)),
    )
    return respond(reply)


async def _run(
    request: Request, pairs: Sequence[Pair], model: str | None, options: RankOptions | None = None
) -> list[Ranked]:
    queries = Counter(query for query, _ in pairs)  # mostly one query, repeated
    beside = [options.instruction] if options and options.instruction else []
    tokens = estimate_tokens_for([text for _, text in pairs], beside)
    tokens += sum((bytes_of(query) // BYTES + 1) * count for query, count in queries.items())
    plan = Reranker(service_of(request).scorer).plan([(query, [text]) for query, text in pairs], options)
    rankings = await run_task(request, plan, texts=len(pairs), tokens=tokens, model=model)
    return [ranking[0] for ranking in rankings]


async def predict(body: PredictBody, request: Request) -> Response:
    """TEI's `/predict` for a model that judges pairs."""
    pairs, alone = _predict_pairs(body.inputs)
    found = await _run(request, pairs, body.model)
    told = [Prediction(score=one.logit if body.raw_scores else one.score, label=LABEL) for one in found]
    return respond(PredictReply(told if alone else [[one] for one in told]))


def _predict_pairs(inputs: str | list[str | list[str]]) -> tuple[list[Pair], bool]:
    """The pairs, and whether the body was a single pair instead of a batch."""
    if isinstance(inputs, list) and not inputs:
        raise EmptyError("inputs: expected at least one, got none")
    alone = isinstance(inputs, list) and all(isinstance(item, str) for item in inputs)
    batch = [inputs] if alone or isinstance(inputs, str) else inputs
    return [_pair(item, i) for i, item in enumerate(batch)], alone


def _pair(item: object, place: int) -> Pair:
    match item:
        case [str(query), str(text)]:
            return query, text
    got = f"a list of {len(item)}" if isinstance(item, list) else type(item).__name__
    raise InputError(
        f"inputs, {place}: expected a pair [query, text], got {got}; to classify single texts send labels as well"
    )
