"""Rerank passages with GLiClass: many labels against a text in one forward pass, with a bundled offline model."""

from gliclass_rerank.errors import (
    CheckpointError,
    DeviceMemoryError,
    GLiClassRerankError,
    InputError,
    InvalidTextError,
    LabelTooLongError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
    NonFiniteError,
    NoPromptsError,
    NotPicklableError,
    NoVectorsError,
    OptionError,
    ServiceError,
    TextTooLongError,
    UnreadableTextError,
    UnsupportedModelError,
)
from gliclass_rerank.scorers.escalation.scorer import Answered, Escalating, EscalationStats
from gliclass_rerank.scorers.load import load_scorer
from gliclass_rerank.scorers.remote.connect import connect_openai
from gliclass_rerank.tasks.classify import Classification, Classifier, LabelScore
from gliclass_rerank.tasks.decide.answers import ChoiceAnswer, NoulAnswer, ScoreAnswer
from gliclass_rerank.tasks.decide.decider import Decider
from gliclass_rerank.tasks.decide.questions import Choice, Noul, Score
from gliclass_rerank.tasks.fact_check.checker import ClaimVerdict, FactChecker, FactReport
from gliclass_rerank.tasks.rerank import Reranker
from gliclass_rerank.tasks.routing.outcomes import RouterReport
from gliclass_rerank.tasks.routing.router import Route, RouteDecision, Router
from gliclass_rerank.types import Example, Logits, ModelInfo, Ranked, Scorer, ScoreRequest

__version__ = "0.1.0"

__all__ = [
    "Answered",
    "CheckpointError",
    "Choice",
    "ChoiceAnswer",
    "ClaimVerdict",
    "Classification",
    "Classifier",
    "Decider",
    "DeviceMemoryError",
    "Escalating",
    "EscalationStats",
    "Example",
    "FactChecker",
    "FactReport",
    "GLiClassRerankError",
    "InputError",
    "InvalidTextError",
    "LabelScore",
    "LabelTooLongError",
    "Logits",
    "MissingExtraError",
    "ModelError",
    "ModelInfo",
    "ModelNotFoundError",
    "NoPromptsError",
    "NoVectorsError",
    "NonFiniteError",
    "NotPicklableError",
    "Noul",
    "NoulAnswer",
    "OptionError",
    "Ranked",
    "Reranker",
    "Route",
    "RouteDecision",
    "Router",
    "RouterReport",
    "Score",
    "ScoreAnswer",
    "ScoreRequest",
    "Scorer",
    "ServiceError",
    "TextTooLongError",
    "UnreadableTextError",
    "UnsupportedModelError",
    "connect_openai",
    "load_scorer",
]
