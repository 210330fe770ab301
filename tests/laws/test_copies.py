"""Copies share their model, pickles load it again, and both do the same as the first."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gliclass_rerank_langchain as langchain_parts
import gliclass_rerank_llama_index as llama_index_parts
import numpy as np
import pytest
from conftest import MINI, Scorers, Tiny, needs_mini
from decision_server import DecisionServer
from fakes import INFO, OverlapScorer
from gliclass_rerank_service import BatchingScorer
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_service import KEY, NoisyScorer, Service, assert_same, needs_key
from openai_server import ChatServer, begins
from serving import running
from tiny_chat import tiny_chat

import gliclass_rerank
from gliclass_rerank import (
    Answered,
    Choice,
    ChoiceAnswer,
    ClaimVerdict,
    Classification,
    Classifier,
    Decider,
    Escalating,
    EscalationStats,
    Example,
    FactChecker,
    FactReport,
    LabelScore,
    Logits,
    MissingExtraError,
    ModelError,
    NotPicklableError,
    Noul,
    NoulAnswer,
    Ranked,
    Reranker,
    Route,
    RouteDecision,
    Router,
    Score,
    ScoreAnswer,
    Scorer,
    ScoreRequest,
    ServiceError,
    UnreadableTextError,
    load_scorer,
)
from gliclass_rerank.calibration.calibrators import IsotonicCalibrator, PlattCalibrator
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.scorers.load import LoadedScorer
from gliclass_rerank.scorers.torch import TorchScorer
from gliclass_rerank.types import FloatArray

Copy = Callable[[Any], Any]


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


HOW = pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickled])
REQUESTS = [ScoreRequest(f"salt comes from the sea {i}", ("sea salt", "bread")) for i in range(5)]
PASSAGES = [request.text for request in REQUESTS]
ROUTES = [Route("sea", "salt and fish", ("where is salt from?",)), Route("bread", "flour and yeast")]
QUERIES, NAMES = ["salt and fish here", "flour for it", "nothing at all"], ["sea", "bread", None]


# Results


texts = st.text("ab ç🍞", min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
rates = st.floats(0, 1)
spans = st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9))
examples = st.builds(Example, texts, st.tuples(texts))
labels = st.builds(LabelScore, texts, rates, st.integers(0, 9), spans)
verdicts = st.builds(ClaimVerdict, texts, st.just(0), st.just(3), st.just("refuted"), rates, rates, st.just(0), spans)
RESULTS: dict[str, st.SearchStrategy[Any]] = {
    "Answered": st.builds(Answered, texts, st.tuples(texts), texts, st.booleans()),
    "Choice": st.builds(Choice, st.none() | texts, st.dictionaries(texts, st.none() | texts, min_size=1)),
    "ChoiceAnswer": st.builds(ChoiceAnswer, texts, st.dictionaries(texts, rates), rates, st.booleans()),
    "ClaimVerdict": verdicts,
    "Classification": st.builds(
        Classification, st.tuples(labels), st.tuples(rates), st.booleans(), st.dictionaries(texts, rates)
    ),
    "EscalationStats": st.builds(EscalationStats, st.integers(0), st.integers(0)),
    "Example": examples,
    "FactReport": st.builds(FactReport, st.tuples(verdicts, verdicts)),
    "LabelScore": labels,
    "ModelInfo": st.just(
        replace(INFO, calibration={"a": PlattCalibrator(1, 2), "b": IsotonicCalibrator((0.0, 1.0), (1.0, 2.0))})
    ),
    "Noul": st.builds(Noul, texts, st.none() | texts, st.none() | texts),
    "NoulAnswer": st.builds(NoulAnswer, rates, st.booleans()),
    "Ranked": st.builds(
        Ranked, st.integers(0), rates, st.floats(-9, 9), st.booleans(), spans, st.dictionaries(texts, rates)
    ),
    "Route": st.builds(Route, texts, texts, st.tuples(texts)),
    "RouteDecision": st.builds(
        RouteDecision, st.none() | texts, rates, st.dictionaries(texts, rates), st.tuples(texts), st.booleans()
    ),
    "RouterReport": st.builds(lambda: Router(ROUTES, OverlapScorer()).fit(QUERIES, NAMES)),
    "Score": st.builds(Score, st.none() | texts, st.lists(texts, min_size=1)),
    "ScoreAnswer": st.builds(ScoreAnswer, rates, st.tuples(rates), rates, st.tuples(texts), st.booleans()),
    "ScoreRequest": st.builds(ScoreRequest, texts, st.tuples(texts), texts, st.tuples(examples)),
}
ERRORS = sorted(name for name in gliclass_rerank.__all__ if name.endswith("Error"))
# Compared by what they do, below.
OTHERS = {
    "Classifier",
    "Decider",
    "Escalating",
    "FactChecker",
    "Logits",
    "Reranker",
    "Router",
    "Scorer",
    "connect_openai",
    "load_scorer",
}


def test_every_public_name_is_here_and_is_pickled_itself() -> None:
    assert {*RESULTS, *ERRORS, *OTHERS} == {*gliclass_rerank.__all__}
    for name in gliclass_rerank.__all__:
        thing = getattr(gliclass_rerank, name)
        assert pickled(thing) is thing


@HOW
@settings(max_examples=20)
@given(data=st.data())
@pytest.mark.parametrize("name", sorted(RESULTS))
def test_results_are_equal(name: str, how: Copy, data: st.DataObject) -> None:
    thing = data.draw(RESULTS[name])
    again = how(thing)
    assert again == thing
    assert type(again) is type(thing)
    assert repr(again) == repr(thing)


@HOW
@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_the_same(name: str, how: Copy) -> None:
    kind = getattr(gliclass_rerank, name)
    arguments = {MissingExtraError: ("torch", "a model"), UnreadableTextError: ("passage 1", "ድመት", "unknown words")}
    errors = [kind(*arguments.get(kind, ("what happened",)))]
    errors += [ServiceError("busy", 429)] * (kind is ServiceError)
    for error in errors:
        again = how(error)
        assert type(again) is kind
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@HOW
def test_logits_keep_their_windows(how: Copy) -> None:
    rows = np.array([[1.5, -2.25], [0.5, 3.75]], np.float32)
    logits = Logits.over_windows(rows, [(0, 4), (2, 9)], truncated=True)
    assert_same([how(logits)], [logits])


# Tasks


def outcomes(task: Any) -> Any:
    if isinstance(task, Reranker):
        return task.rank("salt of the sea", PASSAGES, criteria={"bread": -1.0})
    if isinstance(task, Router):
        return task.route_many(QUERIES), task.thresholds
    if isinstance(task, FactChecker):
        return task.check("Salt comes from bread. The sea is wet.", PASSAGES)
    if isinstance(task, Decider):
        return task.decide(PASSAGES[0], {"salt": Noul("Is it salt?"), "where": Choice("Where?", ["sea", "bread"])})
    return task.classify(PASSAGES, {"food": ["bread", "salt"]})


def fitted(scorer: Scorer) -> Router:
    router = Router(ROUTES, scorer, fallback="elsewhere", examples="prompt")
    router.fit(QUERIES, NAMES)
    return router


TASKS: list[Callable[[Scorer], Any]] = [
    Reranker,
    lambda scorer: Router(ROUTES, scorer, threshold=0.25),
    fitted,
    lambda scorer: FactChecker(scorer, threshold=0.25),
    lambda scorer: Classifier(scorer, separator="/"),
    Decider,
]


@HOW
@pytest.mark.parametrize("made", TASKS)
def test_tasks_do_the_same(made: Callable[[Scorer], Any], how: Copy) -> None:
    scorer = LazyScorer("", OverlapScorer())
    task = made(scorer)
    again = how(task)
    assert outcomes(again) == outcomes(task)
    assert (again.scorer is scorer) == (how is not pickled)


# Scorers


@needs_mini
@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("source", ["mini", MINI])
def test_a_local_scorer_is_loaded_again_as_it_was(source: str | Path, backend: Any) -> None:
    scorer = load_scorer(source, backend=backend, max_length=40, max_batch_tokens=99)
    again: LoadedScorer = pickled(scorer)
    assert isinstance(again, LocalScorer)
    assert type(again) is type(scorer)
    assert again.info == scorer.info
    assert again.max_batch_tokens == 99
    assert_same(again.score(REQUESTS), scorer.score(REQUESTS))
    assert copy.copy(scorer) is copy.deepcopy(scorer) is scorer


@needs_mini
def test_another_process_finds_the_folder_wherever_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(MINI, tmp_path / "models" / "one")
    monkeypatch.chdir(tmp_path / "models")
    scorer = load_scorer("one")
    (tmp_path / "scorer").write_bytes(pickle.dumps(scorer))
    code = "import pickle, sys; print(pickle.load(open('scorer', 'rb')).info.revision)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == scorer.info.revision


def test_a_folder_that_has_changed_is_no_longer_what_was_pickled(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("bert-simple").folder, folder)
    scorer = load_scorer(folder, backend="torch")
    saved = pickle.dumps(Reranker(scorer))
    (folder / "gliclass_rerank.json").write_text('{"first_stage_weight": 0.5}')
    with pytest.raises(ModelError, match=rf"expected the model that was pickled, revision {scorer.info.revision}, got"):
        pickle.loads(saved)


def test_a_scorer_of_objects_in_memory_has_nothing_to_be_loaded_from(scorers: Scorers) -> None:
    loaded = scorers("bert-simple")
    assert isinstance(loaded, TorchScorer)
    scorer = TorchScorer(loaded._checkpoint, loaded.info, max_batch_tokens=512)
    for thing in (scorer, Reranker(scorer), LazyScorer("", scorer)):
        with pytest.raises(NotPicklableError, match="made by load_scorer, got one built from objects in memory"):
            pickle.dumps(thing)
        copy.deepcopy(thing)
    assert issubclass(NotPicklableError, pickle.PicklingError)


def test_a_service_is_connected_again_with_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(NoisyScorer())
    service.always = needs_key
    with running(service.app) as url:
        scorer = load_scorer(url, api_key=KEY, timeout=50)
        saved = pickle.dumps(Reranker(scorer))
        assert KEY.encode() not in saved
        with pytest.raises(ServiceError, match="set GLICLASS_RERANK_API_KEY"):
            pickle.loads(saved)
        monkeypatch.setenv("GLICLASS_RERANK_API_KEY", KEY)
        again = pickle.loads(saved).scorer
        assert again._connection._timeout == 50
        assert_same(again.score(REQUESTS), scorer.score(REQUESTS))
        assert copy.copy(scorer) is copy.deepcopy(scorer) is scorer
        service.info["gliclass"]["revision"] = "2"
        with pytest.raises(ModelError, match="revision 1, got 2"):
            pickle.loads(saved)


def test_a_server_of_others_is_connected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ChatServer(tiny_chat())
    server.models = ["one"]
    with running(server.app) as url:
        scorer = load_scorer(f"openai+{url}/v1", api_key=KEY, concurrency=3)
        server.models = ["one", "two"]
        saved = pickle.dumps(scorer)
        assert KEY.encode() not in saved
        monkeypatch.setenv("OPENAI_API_KEY", "theirs")
        again = pickle.loads(saved)
        assert server.keys[-1] == "Bearer theirs"
        assert again.info == scorer.info
        assert again.origin == scorer.origin
        server.always = begins(("Yes", -0.5), ("No", -1.5))
        assert [row.tolist() for row in again.score(REQUESTS)] == [[1.0, 1.0]] * len(REQUESTS)


@pytest.mark.parametrize(("api", "variable"), [("systemone", "TYPESAFE_API_KEY"), ("decisions", "OPENAI_API_KEY")])
def test_a_decision_server_is_connected_again(api: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = DecisionServer()
    with running(server.app) as url:
        scorer = load_scorer(f"{api}+{url}/v1", api_key=KEY, concurrency=3)
        server.models = ["tiny", "two"]
        saved = pickle.dumps(scorer)
        assert KEY.encode() not in saved
        monkeypatch.setenv(variable, "theirs")
        again = pickle.loads(saved)
        assert server.keys[-1] == "Bearer theirs"
        assert again.info == scorer.info
        assert again.origin == scorer.origin
        assert_same(again.score(REQUESTS), scorer.score(REQUESTS))


class Mine(OverlapScorer):
    """A scorer of one's own."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        return [row + 1 for row in super().score(requests)]


@HOW
@pytest.mark.parametrize(
    "made",
    [
        lambda: LazyScorer("", Mine()),
        lambda: BatchingScorer(Mine(), max_queue_tokens=999),
        lambda: Escalating(OverlapScorer(), Mine(), band=(0.1, 0.7), exclusive=True),
    ],
)
def test_scorers_around_one_keep_it(made: Callable[[], Any], how: Copy) -> None:
    scorer = made()
    again = how(scorer)
    assert again.info == scorer.info
    np.testing.assert_array_equal(again.score(REQUESTS), scorer.score(REQUESTS))
    assert (again is scorer) == (how is not pickled)


@HOW
def test_a_model_that_is_not_loaded_yet_stays_so(how: Copy) -> None:
    assert how(LazyScorer("no-such-model")).model == "no-such-model"


@HOW
@pytest.mark.parametrize(
    "part",
    [
        langchain_parts.GLiClassRerank(scorer=Mine()),
        langchain_parts.GLiClassCrossEncoder(scorer=Mine()),
        langchain_parts.GLiClassFactCheck(scorer=Mine()),
        llama_index_parts.GLiClassRerank(scorer=Mine()),
        llama_index_parts.GLiClassFactCheckFilter(scorer=Mine()),
        llama_index_parts.GLiClassFaithfulnessEvaluator(scorer=Mine()),
        llama_index_parts.GLiClassSelector(scorer=Mine()),
    ],
    ids=lambda part: f"{type(part).__module__.split('.')[0]}.{type(part).__name__}",
)
def test_framework_parts_keep_a_scorer_of_ones_own(part: Any, how: Copy) -> None:
    again = how(part)
    scorer = again._scorer() if callable(getattr(again, "_scorer", None)) else scorer_in(again)
    np.testing.assert_array_equal(scorer.score(REQUESTS), Mine().score(REQUESTS))


def scorer_in(part: Any) -> Scorer:
    """The scorer that a part of LlamaIndex's holds."""
    found: Scorer = part._scorer if hasattr(part, "_scorer") else part._checker.scorer
    return found
