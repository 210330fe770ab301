"""What a job is and does: a checked payload, the work itself, how it ended. The same in every executor."""

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
from gliclass_rerank.types import LongText
from gliclass_rerank.validation import check_text

JobKind = Literal["predict", "rerank"]

logger = logging.getLogger("gliclass_rerank.jobs")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is.

    Attributes:
        state: "processing" from its submission on, until it is "done" or has "failed".
        result: what `run_job` returned, of a job that is done.
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
    """The payload of a "predict" job; a ``batch_size`` is passed over: batches are made by tokens."""

    inputs: Text | Texts
    labels: Texts
    classification_type: Literal["single-label", "multi-label"] = "multi-label"
    threshold: float = Field(0.5, ge=0, le=1)

    def run(self, scorer: Scorer) -> JsonValue:
        """One list of ``{"label", "score"}`` per input, best first: those that hold, or of a single label the best."""
        texts = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        multi_label = self.classification_type == "multi-label"
        found = Classifier(scorer).classify(texts, self.labels, multi_label=multi_label, threshold=self.threshold)
        return [[{"label": kept.label, "score": kept.score} for kept in one.labels] for one in found]


class RerankPayload(BaseModel):
    """The payload of a "rerank" job; a ``top_n`` of 0 means all, as at `/rerank`."""

    model_config = ConfigDict(allow_inf_nan=False)

    query: Text
    documents: Texts
    top_n: int | None = Field(None, ge=0)
    return_documents: bool = False
    raw_scores: bool = False
    long_text: LongText = "window"
    first_stage_scores: Annotated[list[float], Field(fail_fast=True)] | None = None

    def run(self, scorer: Scorer) -> JsonValue:
        """``{"model", "results": [{"index", "relevance_score"}]}``, best first."""
        ranking = Reranker(scorer).rank(
            self.query,
            self.documents,
            top_n=self.top_n or None,
            long_text=self.long_text,
            first_stage_scores=self.first_stage_scores,
        )
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
    """Return the payload with its defaults filled in and nothing else in it, as two equal jobs share it.

    Raises:
        InputError: it is none of this kind; nothing needs to be queued.
    """
    checked: dict[str, JsonValue] = _parsed(kind, payload).model_dump(mode="json")
    return checked


def run_job(scorer: Scorer, kind: JobKind, payload: Mapping[str, JsonValue]) -> JsonValue:
    """Do the work of a job: see `PredictPayload.run` and `RerankPayload.run` for its result.

    Raises:
        InputError: a payload that is none of this kind, or texts that the model cannot take.
        GLiClassRerankError: whatever the scorer raises.
    """
    return _parsed(kind, payload).run(scorer)


def attempt_job(scorer: Scorer, kind: JobKind, payload: Mapping[str, JsonValue]) -> JobStatus:
    """Do the work of a job; whatever goes wrong with it is its status, and no error."""
    try:
        return JobStatus("done", run_job(scorer, kind, payload))
    except GLiClassRerankError as error:
        return JobStatus("failed", error=str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers and onnxruntime panic with what is no Exception
        # Where, and not what: a message may hold the user's text.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("a job failed with %s\n%s", type(error).__name__, where)
        return JobStatus("failed", error=f"internal error ({type(error).__name__}); see the log of what ran the job")


def cache_key(model: ModelInfo, kind: JobKind, payload: Mapping[str, JsonValue]) -> str:
    """A digest of all that a result depends on: the checked payload, and the model with its revision and dtype."""
    parts = [model.name, model.revision, model.dtype, model.max_length, kind, payload]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _parsed(kind: JobKind, payload: Mapping[str, JsonValue]) -> PredictPayload | RerankPayload:
    try:
        return PAYLOADS[kind].model_validate(payload)
    except KeyError:
        raise InputError(f"job: expected one of {', '.join(map(repr, PAYLOADS))}, got {kind!r:.60}") from None
    except ValidationError as error:  # its own message would show the whole payload
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise InputError(f"{kind} job: {wrong}") from None
