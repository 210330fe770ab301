"""Decision servers as scorers: the log-odds of what they answer, in either format, whatever else happens."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import needs_mini
from decision_server import DecisionServer
from fakes import OverlapScorer
from fastapi.responses import JSONResponse, Response
from hypothesis import given
from hypothesis import strategies as st
from openai_server import says
from serving import running

from gliclass_rerank import (
    Classifier,
    Decider,
    Example,
    FactChecker,
    InputError,
    Logits,
    Noul,
    NoulAnswer,
    NoVectorsError,
    OptionError,
    Reranker,
    Route,
    Router,
    ScoreRequest,
    ServiceError,
    TextTooLongError,
    UnsupportedModelError,
    load_scorer,
)
from gliclass_rerank.cli.main import main
from gliclass_rerank.scorers.remote.decisions import MAX_QUESTIONS, DecisionScorer
from gliclass_rerank.scorers.remote.decisions_protocol import SMALLEST, instructions, log_odds
from gliclass_rerank.scorers.remote.question import Question
from gliclass_rerank.types import FloatArray

ROOT = Path(__file__).parents[2]
REQUEST = ScoreRequest("Bread rises because of yeast.", ("bread", "the sea"))
BATCH = [
    REQUEST,
    ScoreRequest("The sea is salt.", ("the sea", "bread", "the sea"), prompt="What is it about?"),
    ScoreRequest("Ein “Zitat” – 🍞\n<|im_end|> [INST]", ("quote",), examples=(Example('"Oh!"', ("quote", "ow")),)),
    replace(REQUEST, labels=("yeast",)),
]


@pytest.fixture
def server() -> DecisionServer:
    return DecisionServer()


@pytest.fixture
def host(server: DecisionServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("OPENAI_API_KEY", "TYPESAFE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with running(server.app) as url:
        yield url


@pytest.fixture(params=["systemone", "decisions"])
def url(request: pytest.FixtureRequest, host: str) -> str:
    return f"{request.param}+{host}/v1"


@pytest.fixture
def scorer(url: str, server: DecisionServer) -> Iterator[DecisionScorer]:
    scorer = connected(url, timeout=30)
    server.asked.clear()
    yield scorer
    scorer.close()


def connected(url: str, **options: Any) -> DecisionScorer:
    scorer = load_scorer(url, **options)
    assert isinstance(scorer, DecisionScorer)
    return scorer


def expected(server: DecisionServer, request: ScoreRequest) -> list[float]:
    questions = [Question(request.text, label, request.prompt, request.examples) for label in request.labels]
    return [float(np.float32(log_odds(server.probability(request.text, instructions(one))))) for one in questions]


def test_logits_are_the_log_odds_of_what_is_answered(scorer: DecisionScorer, server: DecisionServer) -> None:
    for row, request in zip(scorer.score(BATCH), BATCH, strict=True):
        assert isinstance(row, Logits)
        assert row.dtype == np.float32
        assert row.spans == ((0, len(request.text)),)
        assert not row.truncated
        assert row.tolist() == expected(server, request)
    assert scorer.score([]) == []


@given(st.floats(0, 1))
def test_log_odds_stay_finite_and_keep_every_probability(probability: float) -> None:
    odds = log_odds(probability)
    assert abs(odds) <= -math.log(SMALLEST) < 37
    assert 1 / (1 + math.exp(-odds)) == pytest.approx(probability, rel=1e-12, abs=2 * SMALLEST)
    assert log_odds(0.0) == -log_odds(1.0) == pytest.approx(-36.7368, abs=1e-4)


def test_a_text_is_sent_once_with_all_of_its_questions(scorer: DecisionScorer, server: DecisionServer) -> None:
    rows = scorer.score([REQUEST, *BATCH, replace(REQUEST, labels=("bread", "yeast", "bread"))])
    assert sorted(text for text, _ in server.asked) == sorted({request.text for request in BATCH})
    asked = dict(server.asked)
    assert len(asked[REQUEST.text]) == len(set(asked[REQUEST.text])) == 3  # bread, the sea, yeast
    assert rows[-1].tolist() == [rows[0][0], rows[4][0], rows[0][0]]


def test_no_logit_depends_on_what_else_is_asked(scorer: DecisionScorer) -> None:
    together = scorer.score(BATCH)
    for request, row in zip(BATCH, together, strict=True):
        alone = [scorer.score([replace(request, labels=(label,))])[0][0] for label in request.labels]
        assert row.tolist() == alone
    assert [row.tolist() for row in scorer.score(BATCH[::-1])] == [row.tolist() for row in together[::-1]]


def test_all_of_a_request_is_in_the_question(scorer: DecisionScorer, server: DecisionServer) -> None:
    scorer.score([ScoreRequest("T", ("L",), prompt="P", examples=(Example("E", ("A", "B")),))])
    assert server.asked == [
        (
            "T",
            [
                "Is the label a topic or category of the text, a question that the text answers, or a statement that "
                'the text supports?\n\nTask: "P"\n\nText: "E"\nLabels that hold: ["A", "B"]\n\nLabel: "L"'
            ],
        )
    ]


# Limits of servers.


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("most", [1, 5, 400])
def test_questions_are_divided_at_the_servers_limit(
    most: int, status: int, scorer: DecisionScorer, server: DecisionServer
) -> None:
    server.most_questions, server.too_many = most, (status, "too many questions")
    request = ScoreRequest("T", tuple(f"label {i}" for i in range(70)))
    assert scorer.score([request])[0].tolist() == expected(server, request)
    sizes = [len(questions) for _, questions in server.asked]
    assert sum(sizes) == 70
    assert max(sizes) <= min(most, MAX_QUESTIONS)


@pytest.mark.parametrize("long_text", ["window", "truncate", "error"])
@pytest.mark.parametrize(
    "fault",
    [
        lambda _: JSONResponse({"detail": {"error_type": "max_tokens_exceeded", "message": "too long"}}, 422),
        says(400, "This model's maximum context length is 9 tokens."),
    ],
)
def test_a_text_that_does_not_fit_is_an_error_and_never_cut(
    fault: Any, long_text: Any, scorer: DecisionScorer, server: DecisionServer
) -> None:
    server.always = fault
    with pytest.raises(TextTooLongError, match=r"got 29 characters \(label 'bread', text 'Bread rises"):
        scorer.score([replace(REQUEST, long_text=long_text)])


def test_a_refused_label_is_named(scorer: DecisionScorer, server: DecisionServer) -> None:
    def refuses(request: Any) -> Any:
        wanted = '"label 3"' in json.loads(request._body)["questions"].__repr__().replace("\\", "")
        problem = {"loc": ["body", "questions"], "msg": "not that", "type": "x"}
        return JSONResponse({"detail": [problem]}, 422) if wanted else None

    server.always = refuses
    with pytest.raises(InputError, match=r"label 'label 3', text 'T'\): body.questions: not that"):
        scorer.score([ScoreRequest("T", tuple(f"label {i}" for i in range(8)))])


def test_vectors_are_refused(scorer: DecisionScorer) -> None:
    assert not scorer.info.embeds
    for asked in (replace(REQUEST, vector=True), replace(REQUEST, similarity=1.0)):
        with pytest.raises(NoVectorsError, match="tiny: it has no vectors"):
            scorer.score([REQUEST, asked])
    with pytest.raises(NoVectorsError, match="tiny"):
        scorer.embed(["a"])


# Answers that are none.


@pytest.mark.parametrize("value", [-0.01, 1.01, "0.5", "NaN", None, True, [0.5]])
def test_a_probability_is_a_number_from_0_to_1(value: Any, scorer: DecisionScorer, server: DecisionServer) -> None:
    server.change = lambda told: _changed(told, lambda one: _value(one, value))
    with pytest.raises(ServiceError, match=r"got something else \(ValueError: .* instead of a probability in \[0, 1\]"):
        scorer.score([REQUEST])


def test_nan_is_no_probability(scorer: DecisionScorer, server: DecisionServer) -> None:
    server.always = lambda _: raw('{"answers": {"q0": {"type": "noul", "noul": NaN}}}')
    if scorer.info.backend == "decisions":
        server.always = lambda _: raw('{"answers": [{"type": "predicate", "probability": NaN}]}')
    with pytest.raises(ServiceError, match="nan instead of a probability"):
        scorer.score([replace(REQUEST, labels=("bread",))])


def raw(text: str) -> Response:
    return Response(text, media_type="application/json")


def _value(one: dict[str, Any], value: Any) -> dict[str, Any]:
    return one | {"noul" if "noul" in one else "probability": value}


def _changed(told: Any, change: Callable[[Any], Any]) -> Any:
    answers = told["answers"]
    if isinstance(answers, dict):
        return told | {"answers": {name: change(one) for name, one in answers.items()}}
    return told | {"answers": [change(one) for one in answers]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {}, "KeyError: 'answers'"),
        (lambda _: [], "TypeError"),
        (lambda told: told | {"answers": 3}, "got something else"),
        (lambda told: told | {"answers": type(told["answers"])()}, "no answer|0 answers"),
        (lambda told: _changed(told, lambda one: {"type": "refusal", "name": None}), "of type 'refusal' instead of"),
        (lambda told: _changed(told, lambda one: {"type": one["type"]}), "KeyError"),
        (lambda told: _changed(told, lambda one: 0.5), "got something else"),
    ],
)
def test_an_answer_that_is_none_is_told(
    change: Any, message: str, scorer: DecisionScorer, server: DecisionServer
) -> None:
    server.change = change
    with pytest.raises(ServiceError, match=f"expected probabilities that answer 2 yes-or-no questions.*{message}"):
        scorer.score([REQUEST])


@pytest.mark.parametrize("url", ["systemone"], indirect=True)
def test_all_questions_and_no_others_are_answered(scorer: DecisionScorer, server: DecisionServer) -> None:
    server.change = lambda told: told | {"answers": {"q0": told["answers"]["q0"]}}
    with pytest.raises(ServiceError, match=r"no answer .label 'the sea', text 'Bread rises"):
        scorer.score([REQUEST])
    server.change = lambda told: told | {"answers": told["answers"] | {"other": {"type": "noul", "noul": 0.5}}}
    with pytest.raises(ServiceError, match="an answer to 'other', which was not asked"):
        scorer.score([REQUEST])


@pytest.mark.parametrize("url", ["decisions"], indirect=True)
def test_answers_are_in_order_and_may_have_no_names(scorer: DecisionScorer, server: DecisionServer) -> None:
    server.change = lambda told: told | {"answers": told["answers"][::-1]}
    with pytest.raises(ServiceError, match=r"the name 'q1' instead of 'q0' .label 'bread'"):
        scorer.score([REQUEST])
    server.change = lambda told: _changed(told, lambda one: one | {"name": None})
    assert scorer.score([REQUEST])[0].tolist() == expected(server, REQUEST)
    server.change = lambda told: told | {"answers": told["answers"] * 2}
    with pytest.raises(ServiceError, match="4 answers"):
        scorer.score([REQUEST])


# Failures on the way.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_an_overloaded_or_broken_server_is_asked_again(
    status: int, scorer: DecisionScorer, server: DecisionServer
) -> None:
    server.times.clear()
    server.faults = [says(status, retry_after_ms="300")]
    assert scorer.score([REQUEST])[0].tolist() == expected(server, REQUEST)
    assert server.times[1] - server.times[0] >= 0.3


@pytest.mark.parametrize(("status", "advice"), [(429, "overloaded"), (500, "the service's log"), (529, "overloaded")])
def test_one_that_stays_so_is_given_up(status: int, advice: str, url: str, server: DecisionServer) -> None:
    scorer = connected(url, timeout=20)
    server.always = says(status, "not now", retry_after="60")
    with pytest.raises(ServiceError, match=rf"{status}, not now.*{advice}") as raised:
        scorer.score([REQUEST])
    assert raised.value.status == status


def test_a_refused_key_is_told(url: str, server: DecisionServer) -> None:
    variable = "TYPESAFE_API_KEY" if url.startswith("systemone") else "OPENAI_API_KEY"
    server.always = says(401, "bad key")
    with pytest.raises(ServiceError, match=f"401, bad key.*{variable}") as raised:
        load_scorer(url, api_key="secret")
    assert "secret" not in str(raised.value)


def test_few_requests_are_under_way_at_a_time(url: str, server: DecisionServer) -> None:
    scorer = connected(url, concurrency=3)
    met = threading.Barrier(3)  # each request waits until three are there, so there must be as many
    server.most = 0

    def meets(_: Any) -> None:
        met.wait(60)

    server.always = meets
    batch = [ScoreRequest(f"text {i}", ("a", "b")) for i in range(6)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(scorer.score, [batch] * 4))
    assert server.most == 3
    assert all(np.array_equal(result, results[0]) for result in results)


# Which server, and which of its models.


@pytest.mark.parametrize("lists", ["data", "models"])
def test_the_model_is_the_only_one_or_named(lists: Any, url: str, server: DecisionServer) -> None:
    server.lists = lists
    info = load_scorer(url).info
    api, _, place = url.partition("+")
    assert (info.name, info.architecture, info.backend, info.device) == ("tiny", "decision", api, place)
    assert (info.calibrated, info.independent_labels, info.prompts) == (False, False, True)
    server.models = ["owner/one", "two"]
    assert load_scorer(url, model="owner/one").info == load_scorer(f"{url}#owner/one").info
    with pytest.raises(OptionError, match=rf"model: .*\(owner/one, two\).*{api}\+http"):
        load_scorer(url)
    with pytest.raises(UnsupportedModelError, match=r"'three': expected one that answers yes-or-no.*no model three"):
        load_scorer(url, model="three")


def test_a_named_model_needs_no_list(url: str, server: DecisionServer) -> None:
    server.lists = None
    assert load_scorer(url, model="tiny").info.name == "tiny"
    with pytest.raises(ServiceError, match="404"):
        load_scorer(url)


def test_the_url_may_be_that_of_the_questions(host: str, server: DecisionServer) -> None:
    for one in ("systemone", "decisions"):
        assert load_scorer(f"{one}+{host}/v1/{one}/").info == load_scorer(f"{one}+{host}/v1").info
    app_path = f"systemone+{host}/v1/decisions"  # TypeSafe's format at OpenAI's path, as some servers have it
    with pytest.raises(UnsupportedModelError, match="input"):  # which this one has not
        load_scorer(app_path)


@pytest.mark.parametrize(
    "options",
    [{"backend": "onnx"}, {"device": "cpu"}, {"threads": 2}, {"timeout": 0}, {"concurrency": 0}, {"api_key": "a\nb"}],
)
def test_options_that_a_server_cannot_have_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        load_scorer("systemone+http://localhost:1", **options)
    with pytest.raises(ServiceError, match="does not answer"):
        load_scorer("decisions+http://127.0.0.1:1/v1")


# Every door takes such a URL where it takes a model.


def test_tasks_take_it(url: str, scorer: DecisionScorer, server: DecisionServer) -> None:
    passages = ["The sea is salt.", "Bread rises because of yeast."]
    for passage, probability in zip(passages, (0.2, 0.9), strict=True):
        server.sure[passage, 'Label: "why?"'] = probability
    ranked = Reranker(url).rank("why?", passages, instruction="Find causes.")
    assert [one.index for one in ranked] == [1, 0]
    assert [one.score for one in ranked] == pytest.approx([0.9, 0.2])
    server.sure |= {("salt", 'Label: "bake: bread"'): 0.0, ("salt", 'Label: "swim: the sea"'): 0.75}
    decision = Router([Route("bake", "bread"), Route("swim", "the sea")], url).route("salt")
    assert decision.name == "swim"
    assert decision.score == pytest.approx(0.75)
    (claim,) = FactChecker(url).check("The sea is salt.", passages).claims
    odds = [scorer.score([ScoreRequest(passage, (claim.text,))])[0][0] for passage in passages]
    assert claim.support == pytest.approx(1 / (1 + np.exp(-max(odds))))
    one = Classifier(url).classify("salt", ["bread", "the sea"], multi_label=False, prompt="What is it?")
    assert one == Classifier(scorer).classify("salt", ["bread", "the sea"], multi_label=False, prompt="What is it?")
    server.sure |= {("salt", 'Label: "Is it wet? Yes"'): 0.75, ("salt", 'Label: "Is it wet? No"'): 0.5}
    answer = Decider(url).decide("salt", {"wet": Noul("Is it wet?")})["wet"]
    assert isinstance(answer, NoulAnswer)
    assert answer.probability == pytest.approx(0.75)


def test_the_command_line_takes_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["classify", "salt", "--labels", "bread,the sea", "--model", f"{url}#tiny", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)


def test_the_service_and_its_settings_take_it(url: str, scorer: DecisionScorer) -> None:
    from gliclass_rerank_service import BatchingScorer
    from gliclass_rerank_service.app import create_app
    from gliclass_rerank_service.settings import Settings, load_model, read_settings

    loaded = load_model(Settings(model=f"{url}#tiny", concurrency=3))
    assert loaded.origin == load_scorer(url, model="tiny", concurrency=3).origin
    with running(create_app(BatchingScorer(scorer), read_settings())) as service:
        chained = load_scorer(service)  # a service over it is one more scorer
        assert [row.tolist() for row in chained.score(BATCH)] == [row.tolist() for row in scorer.score(BATCH)]
        answer = httpx.post(f"{service}/rerank", json={"query": "why?", "documents": ["a", "b"]}, timeout=60)
        assert answer.status_code == 200, answer.text


# Our own service as the server.


def ours(scorer: Any) -> Any:
    from gliclass_rerank_service import Settings, create_app

    return create_app(scorer, Settings(model_aliases=()))


@pytest.mark.parametrize("api", ["systemone", "decisions"])
@pytest.mark.parametrize("model", ["overlap", pytest.param("mini", marks=needs_mini)])
def test_our_service_answers_as_the_decider_does(model: str, api: str) -> None:
    local: Any = OverlapScorer() if model == "overlap" else load_scorer("mini")
    decider = Decider(local)
    with running(ours(local)) as service, connected(f"{api}+{service}/v1") as scorer:
        assert scorer.info.name == model
        for request, row in zip(BATCH[:2], scorer.score(BATCH[:2]), strict=True):
            questions = [Question(request.text, label, request.prompt) for label in request.labels]
            asked = {str(i): Noul(instructions(one)) for i, one in enumerate(questions)}
            for answer, logit in zip(decider.decide(request.text, asked).values(), row.tolist(), strict=True):
                assert isinstance(answer, NoulAnswer)
                odds = math.log(answer.probability) - math.log1p(-answer.probability)
                assert logit == pytest.approx(odds, abs=1e-4)


class Sides(OverlapScorer):
    """Answers "... No" with the opposite of "... Yes", as a model does that has learned both sides."""

    def _logits(self, text: str, labels: Sequence[str]) -> FloatArray:
        sides = np.array([-1.0 if label.endswith(" No") else 1.0 for label in labels], np.float32)
        asked = [label.rpartition("Label: ")[2].replace('"', " ").rpartition(" ")[0] for label in labels]
        return sides * super()._logits(text, asked)


@pytest.mark.parametrize("api", ["systemone", "decisions"])
def test_our_service_orders_and_routes_as_its_scorer_does(api: str) -> None:
    passages = ["the sea is salt", "bread needs yeast", "the salt of the dead sea", "nothing"]
    with running(ours(Sides())) as service, connected(f"{api}+{service}/v1") as scorer:
        ranked = Reranker(scorer).rank("salt of the dead sea", passages)
        assert [one.index for one in ranked] == [2, 0, 1, 3]
        # The two sides of a noul are twice as far apart as the logits.
        assert [one.logit for one in ranked] == pytest.approx([2 * (2 * shared - 3) for shared in (5, 3, 0, 0)])
        routes = [Route("bake", "bread and yeast"), Route("swim", "salt and the sea")]
        assert Router(routes, scorer).route_many(passages[:2]) == Router(routes, Doubled()).route_many(passages[:2])


class Doubled(OverlapScorer):
    """Logits twice as large."""

    def _logits(self, text: str, labels: Sequence[str]) -> FloatArray:
        return 2 * super()._logits(text, labels)


@pytest.mark.parametrize("api", ["systemone", "decisions"])
def test_our_service_with_a_key_and_a_limit(api: str) -> None:
    from gliclass_rerank_service import Settings, create_app
    from pydantic import SecretStr

    settings = Settings(model_aliases=(), api_keys=(SecretStr("key"),), max_request_tokens=2000)
    with running(create_app(OverlapScorer(), settings)) as service:
        with pytest.raises(ServiceError, match="401"):
            load_scorer(f"{api}+{service}/v1", api_key="wrong")
        with connected(f"{api}+{service}/v1", api_key="key") as scorer:
            labels = tuple(f"the label number {i}" for i in range(64))  # together more than the service reads at a time
            assert len(scorer.score([ScoreRequest("a text", labels)])[0]) == 64
            with pytest.raises(TextTooLongError, match="label 'x'"):
                scorer.score([ScoreRequest("salt " * 3000, ("x",))])
