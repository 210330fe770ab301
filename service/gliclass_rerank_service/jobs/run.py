"""Run a job: payloads, their validation, the work, and the status. The same for every executor."""

from __future__ import annotations

import hashlib
import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from gliclass_rerank import Classifier, GLiClassRerankError, InputError, ModelInfo, Ranked, Reranker, Scorer
from gliclass_rerank.scoring import Plan, Score, drive
from gliclass_rerank.tasks.classify import ClassifyOptions
from gliclass_rerank.tasks.rerank import RankOptions
from gliclass_rerank.types import LongText
from gliclass_rerank.unreadable import Unreadable
from gliclass_rerank.validation import check_text

JobKind = Literal["predict", "rerank"]

logger = logging.getLogger("gliclass_rerank.jobs")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Status of a job.

    Attributes:
        state: "processing" from its submission on, until it is "done" or has "failed".
        result: return value of `run_job` for a job that is done.
        error: why a job has failed.
    """

    state: Literal["processing", "done", "failed"]
    result: JsonValue = None
    error: str | None = None


def _checked(text: str) -> str:
    return check_text(text, "text")


Text = Annotated[str, AfterValidator(_checked)]
Texts = Annotated[list[Text], Field(min_length=1, fail_fast=True)]


class PredictPayload(BaseModel):
    """Payload of a "predict" job. A ``batch_size`` is ignored, since batches are formed by tokens."""

    inputs: Text | Texts
    labels: Texts
    classification_type: Literal["single-label", "multi-label"] = "multi-label"
    threshold: float = Field(0.5, ge=0, le=1)

    def plan(self, scorer: Scorer) -> Plan[JsonValue]:
        """One list of ``{"label", "score"}`` per input, best first: all that apply, or the best if single-label."""
        options = ClassifyOptions(self.classification_type == "multi-label", self.threshold)
        found = yield from Classifier(scorer).plan(self.inputs, self.labels, options)
        return [[{"label": kept.label, "score": kept.score} for kept in one.labels] for one in found]


class RerankPayload(BaseModel):
    """Payload of a "rerank" job. A ``top_n`` of 0 means all, as at `/rerank`."""

    model_config = ConfigDict(allow_inf_nan=False)

    query: Text
    documents: Texts
    top_n: int | None = Field(None, ge=0)
    return_documents: bool = False
    raw_scores: bool = False
    long_text: LongText = "window"
    unreadable: Unreadable = "flag"
    instruction: Text | None = None
    first_stage_scores: Annotated[list[float], Field(fail_fast=True)] | None = None

    def plan(self, scorer: Scorer) -> Plan[JsonValue]:
        """``{"model", "results": [{"index", "relevance_score"}]}``, best first."""
        options = RankOptions(
            top_n=self.top_n or None,
            long_text=self.long_text,
            unreadable=self.unreadable,
            instruction=self.instruction,
        )
        pair, given = (self.query, self.documents), self.first_stage_scores
        (ranking,) = yield from Reranker(scorer).plan([pair], options, first_stage_scores=[given])
        return {"model": scorer.info.name, "results": [self._result(ranked) for ranked in ranking]}

    @model_validator(mode="after")
    def _one_score_a_document(self) -> RerankPayload:
        given = self.first_stage_scores
        if given is not None and len(given) != len(self.documents):
            raise ValueError(
                f"first_stage_scores: expected one for each of {len(self.documents)} documents, got {len(given)}"
            )
        return self

    def _result(self, ranked: Ranked) -> JsonValue:
        score = ranked.logit if self.raw_scores else ranked.score
        result: dict[str, JsonValue] = {"index": ranked.index, "relevance_score": score}
        if self.return_documents:
            result["document"] = {"text": self.documents[ranked.index]}
        if ranked.truncated:
            result["truncated"] = True
        if not ranked.readable:
            result["readable"] = False
        return result


PAYLOADS: Mapping[JobKind, type[PredictPayload] | type[RerankPayload]] = {
    "predict": PredictPayload,
    "rerank": RerankPayload,
}


def checked_payload(kind: JobKind, payload: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the payload with its defaults and without unknown fields, so that equal jobs have equal payloads.

    Raises:
        InputError: an invalid payload of this kind.
    """
    checked: dict[str, JsonValue] = _parsed(kind, payload).model_dump(mode="json")
    return checked


def run_job(
    scorer: Scorer, kind: JobKind, payload: Mapping[str, JsonValue], *, score: Score | None = None
) -> JsonValue:
    """Do the work of a job. See `PredictPayload.plan` and `RerankPayload.plan` for its result.

    Args:
        scorer: the model of the job.
        kind, payload: the job.
        score: scores its requests, in steps for instance. Default: ``scorer.score``.

    Raises:
        InputError: an invalid payload of this kind, or texts that the model cannot read.
        GLiClassRerankError: any error of the scorer.
    """
    return drive(_parsed(kind, payload).plan(scorer), score or scorer.score)


def attempt_job(
    scorer: Scorer, kind: JobKind, payload: Mapping[str, JsonValue], *, score: Score | None = None
) -> JobStatus:
    """Do the work of a job as `run_job` does. Any error becomes its status."""
    try:
        return JobStatus("done", run_job(scorer, kind, payload, score=score))
    except GLiClassRerankError as error:
        return JobStatus("failed", error=str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of tokenizers and onnxruntime are not subclasses of Exception
        # Log only the frames, since the message may contain the user's text.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("a job failed with %s\n%s", type(error).__name__, where)
        return JobStatus(
            "failed", error=f"internal error ({type(error).__name__}); see the log of the process that ran it"
        )


def cache_key(model: ModelInfo, kind: JobKind, payload: Mapping[str, JsonValue]) -> str:
    """Digest of everything a result depends on: the checked payload, and the model with its revision and dtype."""
    parts = [model.name, model.revision, model.dtype, model.max_length, kind, payload]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _parsed(kind: JobKind, payload: Mapping[str, JsonValue]) -> PredictPayload | RerankPayload:
    try:
        return PAYLOADS[kind].model_validate(payload)
    except KeyError:
        raise InputError(f"job: expected one of {', '.join(map(repr, PAYLOADS))}, got {kind!r:.60}") from None
    except ValidationError as error:  # its message contains the whole payload
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise InputError(f"{kind} job: {wrong}") from None
