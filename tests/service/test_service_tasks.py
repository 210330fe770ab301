"""The other operations, in the shapes of their clients: pairs, labels, routes, checks, logits, jobs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from conftest import MINI, Scorers, needs_mini
from fakes import ConstantScorer, OverlapScorer, ShortScorer
from gliclass_rerank_service import Settings, create_app, estimate_tokens
from gliclass_rerank_service.jobs import broker_calls
from serving import GatedScorer, post, wait_for
from starlette.testclient import TestClient

from gliclass_rerank import (
    Classifier,
    FactChecker,
    Logits,
    Reranker,
    Route,
    Router,
    Scorer,
    ScoreRequest,
    UnreadableTextError,
    load_scorer,
)
from gliclass_rerank.types import FloatArray

TEXTS = ["a red apple", "the door is green"]
EVIDENCE = ["The tower is tall and red.", "Nobody likes pears."]
ANSWER = "The tower is tall and red. It was built by cats in the moonlight."


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return OverlapScorer(window=20)


@pytest.fixture(scope="module")
def client(scorer: Scorer) -> Iterator[TestClient]:
    with TestClient(create_app(scorer, Settings())) as made:
        yield made


# Pairs.


@pytest.mark.parametrize("names", [("queries", "documents"), ("text_1", "text_2")])
def test_vllm_scores_one_query_for_many_documents_in_their_order(
    client: TestClient, scorer: Scorer, names: tuple[str, str]
) -> None:
    reply = post(client, "/score", **dict(zip(names, ("red door", TEXTS), strict=True)), model="m")
    ranked = sorted(Reranker(scorer).rank("red door", TEXTS), key=lambda one: one.index)
    assert reply["data"] == [{"index": one.index, "object": "score", "score": one.score} for one in ranked]
    assert {"id", "model", "usage", "created"} <= set(reply)


def test_vllm_scores_as_many_queries_as_documents(client: TestClient) -> None:
    swapped = post(client, "/score", queries=["apple", "door"], documents=TEXTS)["data"]
    assert swapped[0]["score"] == swapped[1]["score"] > 0.2
    crossed = post(client, "/score", queries=["door", "apple"], documents=TEXTS)["data"]
    assert crossed[0]["score"] < 0.1


def test_tei_predicts_a_pair_or_a_batch_of_pairs(client: TestClient, scorer: Scorer) -> None:
    expected = Reranker(scorer).rank("red apple", TEXTS[:1])[0]
    alone = post(client, "/predict", inputs=["red apple", TEXTS[0]])
    assert alone == [{"score": expected.score, "label": "relevant"}]
    batch = post(client, "/predict", inputs=[["red apple", TEXTS[0]], ["x", TEXTS[1]]], raw_scores=True)
    assert [len(one) for one in batch] == [1, 1]
    assert batch[0][0]["score"] == expected.logit


# Labels, routes and checks: what the library says.


def test_classify_says_what_the_library_says(client: TestClient, scorer: Scorer) -> None:
    labels = {"colour": ["red", "green"], "thing": ["apple", "door"]}
    options = {"threshold": 0.2, "hierarchical": True, "top_k": 2}
    reply = post(client, "/classify", texts=TEXTS, labels=labels, **options)
    expected = Classifier(scorer).classify(TEXTS, labels, threshold=0.2, hierarchical=True, top_k=2)
    for told, one in zip(reply["results"], expected, strict=True):
        assert [(label["label"], label["score"]) for label in told["labels"]] == [
            (label.label, label.score) for label in one.labels
        ]
        assert told["scores"] == list(one.scores)
        assert told["tree"] == one.tree
    single = post(client, "/classify", text=TEXTS[0], labels=["red", "green"], multi_label=False)["results"]
    assert [label["label"] for label in single[0]["labels"]] == ["red"]
    assert sum(single[0]["scores"]) == pytest.approx(1)


def test_each_text_may_have_labels_and_prompts_of_its_own(client: TestClient) -> None:
    examples = [[{"text": "a red one", "labels": ["red"]}], None]
    reply = post(
        client, "/classify", texts=TEXTS, labels=[["red"], ["door", "open"]], prompt=["Which?", None], examples=examples
    )
    assert [len(one["scores"]) for one in reply["results"]] == [1, 2]


def test_vllm_classifies_input_by_labels_in_words(client: TestClient) -> None:
    reply = post(client, "/classify", input=TEXTS, labels=["green", "apple"], model="m")
    assert [(one["index"], one["label"], one["num_classes"]) for one in reply["data"]] == [
        (0, "apple", 2), (1, "green", 2)
    ]  # fmt: skip
    assert all(sum(one["probs"]) == pytest.approx(1) for one in reply["data"])
    unsure = post(client, "/classify", input=TEXTS[0], labels=["zebra", "red"], multi_label=True)
    assert [(one["label"], one["num_classes"]) for one in unsure["data"]] == [("red", 2)]
    refused = client.post("/classify", json={"input": TEXTS})
    assert refused.status_code == 422
    assert "labels" in refused.json()["message"]


def test_route_says_what_the_library_says(client: TestClient, scorer: Scorer) -> None:
    routes = [{"name": "fruit", "description": "apple pear", "examples": ["a red apple"]}, {"name": "house door"}]
    expected = Router(
        [Route("fruit", "apple pear", ("a red apple",)), Route("house door")], scorer, threshold=0.3, fallback="else"
    ).route_many([*TEXTS, "nothing"])
    reply = post(client, "/route", queries=[*TEXTS, "nothing"], routes=routes, threshold=0.3, fallback="else")
    assert [(one["name"], one["score"], one["scores"], one["names"], one["abstained"]) for one in reply["results"]] == [
        (one.name, one.score, dict(one.scores), list(one.names), one.abstained) for one in expected
    ]
    assert [one["name"] for one in reply["results"]] == ["fruit", "else", "else"]
    short = post(client, "/route", query=TEXTS[0], routes={"fruit": "apple", "house": "door"}, multi="true")
    assert set(short["results"][0]["scores"]) == {"fruit", "house"}
    abstained = post(client, "/route", query="x", routes={"fruit": "apple"}, threshold=0.9)["results"][0]
    assert abstained["name"] is None


def test_check_says_what_the_library_says(client: TestClient, scorer: Scorer) -> None:
    reply = post(client, "/check", answer=ANSWER, evidence=EVIDENCE, filter=True)
    report = FactChecker(scorer).check(ANSWER, EVIDENCE)
    assert reply["supported"] == report.supported == 0.5
    assert reply["passed"] is False
    for told, claim in zip(reply["claims"], report.claims, strict=True):
        assert (told["text"], told["verdict"], told["support"], told["evidence"]) == (
            claim.text, claim.verdict, claim.support, claim.evidence
        )  # fmt: skip
        assert ANSWER[told["start"] : told["end"]] == told["text"]
    assert reply["filtered"] == report.filter(ANSWER) == "The tower is tall and red."
    strict = post(client, "/check", answer=ANSWER, evidence=EVIDENCE[0], threshold=1.0, refute_threshold=1.0)
    assert strict["supported"] == 0
    assert strict["filtered"] is None
    every = ["supported", "refuted", "not_enough_info"]
    assert post(client, "/check", answer=ANSWER, evidence=EVIDENCE, filter=True, keep=every)["filtered"] == ANSWER


@pytest.mark.parametrize(
    "options",
    [{"threshold": 1.0}, {"refute_threshold": 1.0}, {"only_claims": True}],
    ids=lambda options: next(iter(options)),
)
def test_each_option_of_a_check_reaches_the_checker(
    client: TestClient, scorer: Scorer, options: dict[str, Any]
) -> None:
    answer, evidence = "The tower is tall. Pears are liked. Hello!", [*EVIDENCE, "pears are a false fruit"]
    report = FactChecker(scorer, **options).check(answer, evidence)
    assert report != FactChecker(scorer).check(answer, evidence)
    told = post(client, "/check", answer=answer, evidence=evidence, **options)["claims"]
    assert [(one["text"], one["verdict"]) for one in told] == [(one.text, one.verdict) for one in report.claims]


class RememberingShortScorer(ShortScorer):
    """Keeps the requests that it scored last."""

    last: Sequence[ScoreRequest] = ()

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        rows = super().score(requests)
        self.last = list(requests)
        return rows


def test_a_claim_too_long_for_the_model_is_read_in_parts() -> None:
    answer = "The tower is tall, " * 9 + "and it is red. Nobody likes pears."
    scored = RememberingShortScorer()
    with TestClient(create_app(scored, Settings())) as short:
        reply = post(short, "/check", answer=answer, evidence=EVIDENCE)
        refused = short.post("/logits", json={"requests": [{"text": "a", "labels": ["b" * 61]}]})
    report = FactChecker(ShortScorer()).check(answer, EVIDENCE)
    assert [(one["parts"], one["support"], one["verdict"]) for one in reply["claims"]] == [
        (claim.parts, claim.support, claim.verdict) for claim in report.claims
    ]
    assert report.claims[0].parts > 1
    assert reply["usage"]["total_tokens"] == sum(map(estimate_tokens, scored.last))  # not what was refused
    assert (refused.status_code, refused.json()["error_type"]) == (422, "LabelTooLong")


def test_an_answer_that_claims_nothing_needs_no_model(client: TestClient) -> None:
    reply = post(client, "/check", answer="?!", evidence=EVIDENCE)
    assert (reply["claims"], reply["passed"], reply["usage"]["total_tokens"]) == ([], True, 0)


# Logits and info.


@pytest.mark.parametrize("name", ["bert-simple", "overlap"])
def test_logits_are_exact_to_the_bit_and_tell_the_windows(scorers: Scorers, scorer: Scorer, name: str) -> None:
    real = scorer if name == "overlap" else scorers(name, "onnx")
    long = " ".join(f"word{i} and more of it" for i in range(300))
    requests = [
        ScoreRequest("a red apple", ("red apple", "door", "red apple")),
        ScoreRequest(long, ("word7", "red"), prompt="Which?"),
        ScoreRequest(long, ("word7",), long_text="truncate"),
    ]
    body = [
        {"text": one.text, "labels": one.labels, "prompt": one.prompt, "long_text": one.long_text} for one in requests
    ]
    with TestClient(create_app(real, Settings())) as client:
        reply = post(client, "/logits", requests=body)
    assert (reply["model"], reply["revision"]) == (real.info.name, real.info.revision)
    for told, expected in zip(reply["results"], real.score(requests), strict=True):
        assert isinstance(expected, Logits)
        assert np.array_equal(np.array(told["logits"], np.float32), expected)
        assert [tuple(span) for span in told["spans"]] == list(expected.spans)
        assert told["truncated"] == expected.truncated
        if len(expected.spans) > 1:
            assert np.array_equal(np.array(told["per_window"], np.float32), expected.per_window)
        else:
            assert "per_window" not in told
    assert len(reply["results"][1]["spans"]) > 1
    assert reply["results"][2]["truncated"]


def test_logits_take_examples(client: TestClient) -> None:
    request = {"text": "a", "labels": ["a"], "examples": [{"text": "b", "labels": ["c"]}]}
    assert len(post(client, "/logits", requests=[request])["results"]) == 1
    wrong = client.post("/logits", json={"requests": [request | {"examples": [{"text": "", "labels": []}]}]})
    assert wrong.status_code == 422


def test_logits_that_are_no_numbers_are_the_models_failure() -> None:
    with TestClient(create_app(ConstantScorer(float("nan")), Settings())) as client:
        for path, body in (
            ("/logits", {"requests": [{"text": "a", "labels": ["b"]}]}),
            ("/v2/rerank", {"query": "a", "documents": ["b"]}),
        ):
            response = client.post(path, json=body)
            assert response.status_code == 424
            assert response.json()["error_type"] == "Backend"


@needs_mini
def test_info_has_teis_keys_and_ours() -> None:
    scorer = load_scorer(MINI)
    with TestClient(create_app(scorer, Settings(max_texts=7))) as client:
        told = client.get("/info").json()
    assert {
        "model_id", "model_sha", "model_dtype", "served_model_name", "model_type", "max_concurrent_requests",
        "max_input_length", "max_batch_tokens", "max_batch_requests", "max_client_batch_size", "auto_truncate",
        "tokenization_workers", "version",
    } <= set(told)  # fmt: skip
    assert set(told["model_type"]["reranker"]) == {"id2label", "label2id"}
    assert told["max_client_batch_size"] == 7
    ours, info = told["gliclass"], scorer.info
    assert ours["name"] == info.name
    assert ours["calibrated"] is info.calibrated
    calibration = {task: json.loads(json.dumps(made.as_dict())) for task, made in info.calibration.items()}
    assert ours["calibration"] == calibration


# Jobs.


def test_a_job_is_accepted_worked_on_and_told() -> None:
    scorer = GatedScorer()
    with TestClient(create_app(scorer, Settings())) as client:
        wait_for(lambda: client.get("/ready").status_code == 200)
        scorer.gate.clear()
        body = {"inputs": TEXTS, "labels": ["red", "door"], "classification_type": "multi-label", "batch_size": "8"}
        accepted = client.post("/predict", json=body | {"threshold": 0.2})
        assert accepted.status_code == 202
        told = accepted.json()
        assert (told["status"], told["executor"]) == ("Processing", "in-process")
        url = f"/result/{told['task_id']}"
        waiting = client.get(url)
        assert (waiting.status_code, waiting.json()["status"]) == (202, "Processing")
        scorer.gate.set()
        wait_for(lambda: client.get(url).status_code == 200)
        done = client.get(url).json()
    assert done["status"] == "Completed"
    assert [[one["label"] for one in labels] for labels in done["result"]] == [["red"], ["door"]]


def test_a_rerank_job_ranks_as_rerank_does(client: TestClient) -> None:
    body = {"query": "red apple", "documents": [*TEXTS, {"text": "apple"}], "top_n": 2, "return_documents": True}
    accepted = client.post("/jobs/rerank", json=body)
    assert accepted.status_code == 202
    url = f"/result/{accepted.json()['task_id']}"
    wait_for(lambda: client.get(url).status_code == 200)
    assert client.get(url).json()["result"]["results"] == post(client, "/v1/rerank", **body)["results"]


def test_a_job_that_fails_says_why_and_an_unknown_one_is_none() -> None:
    with TestClient(create_app(ConstantScorer(float("nan")), Settings())) as client:
        url = f"/result/{client.post('/predict', json={'inputs': 'a', 'labels': ['b']}).json()['task_id']}"
        wait_for(lambda: client.get(url).status_code == 200)
        failed = client.get(url).json()
        assert failed["status"] == "Failed"
        assert "not finite" in failed["error"]
        assert client.get("/result/none").status_code == 404


def test_a_job_that_is_too_large_is_not_accepted(scorer: Scorer) -> None:
    """Each input is read with all labels."""
    with TestClient(create_app(scorer, Settings(max_job_tokens=100))) as made:
        for path, body in (
            ("/predict", {"inputs": ["a"] * 11, "labels": ["b"] * 10}),
            ("/jobs/rerank", {"query": "a" * 40, "documents": ["b"] * 10}),
        ):
            refused = made.post(path, json=body)
            assert refused.status_code == 413
            assert "at most 100 tokens per job, got about" in refused.json()["message"]
        assert made.post("/predict", json={"inputs": ["a"] * 5, "labels": ["b"] * 10}).status_code == 202


@pytest.fixture
def silent_broker() -> Iterator[str]:
    """The URL of what listens, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def test_a_broker_that_does_not_answer_leaves_room_for_others(
    silent_broker: str, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_calls, "MOST_CALLS", 2)
    app = create_app(scorer, Settings(broker_url=silent_broker, timeout_seconds=1.0))
    assert app.state.service.jobs.executor == "celery"
    job = {"inputs": "a", "labels": ["b"]}
    with TestClient(app) as client, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(client.post, "/predict", json=job), threads.submit(client.get, "/result/x")]
        wait_for(lambda: app.state.service.job_calls._under_way == 2)
        refused = client.get("/result/x")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.post("/rerank", json={"query": "a", "texts": ["b"]}).status_code == 200
        late = [one.result(30) for one in asked]
    assert [one.status_code for one in late] == [504, 504]
    assert all("broker" in one.json()["message"] for one in late)


def test_a_job_that_cannot_be_done_is_not_accepted(client: TestClient) -> None:
    for path, body in (
        ("/predict", {"inputs": "a", "labels": []}),
        ("/predict", {"inputs": [["a", "b"]], "labels": ["c"]}),
        ("/predict", {"inputs": "", "labels": ["c"]}),
        ("/jobs/rerank", {"query": "a", "documents": ["b\0"]}),
        ("/jobs/rerank", {"query": "a", "documents": ["b"], "relevant_spans": {"mode": "enabled"}}),
    ):
        assert client.post(path, json=body).status_code == 422, body


# What the model cannot read.


class EnglishScorer(OverlapScorer):
    """Reads ASCII alone, says what else it was given, and refuses "~~"."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        for request in requests:
            for text in (request.text, *request.labels):
                if text == "~~":
                    raise UnreadableTextError("text", text, "nothing is left of it")
        return [
            Logits.over_windows(
                row[np.newaxis],
                [(0, len(request.text))],
                unread_text=not request.text.isascii(),
                unread_labels=[i for i, label in enumerate(request.labels) if not label.isascii()],
            )
            for request, row in zip(requests, super().score(requests), strict=True)
        ]


@pytest.fixture(scope="module")
def english() -> Iterator[TestClient]:
    with TestClient(create_app(EnglishScorer(), Settings())) as made:
        yield made


FOREIGN = "ፓሪስ"


def test_answers_say_what_the_model_could_not_read(english: TestClient) -> None:
    ranked = post(english, "/rerank", query="door", documents=["the door", FOREIGN])["results"]
    assert [(one["index"], one.get("readable")) for one in ranked] == [(0, None), (1, False)]
    bare = post(english, "/rerank", query="door", texts=["the door", FOREIGN])
    assert all(set(one) == {"index", "score"} for one in bare), "TEI's answer has no fields of ours"
    (claim,) = post(english, "/check", answer="The door.", evidence=[FOREIGN], threshold=0)["claims"]
    assert (claim["readable"], claim["verdict"], claim["support"]) == (False, "not_enough_info", 0)
    routed = post(english, "/route", queries=["door", FOREIGN], routes={"a": "the door", "b": ""})["results"]
    assert [one["readable"] for one in routed] == [True, False]
    labelled = post(english, "/classify", texts=["door", FOREIGN], labels=["door"])["results"]
    assert [one["readable"] for one in labelled] == [True, False]
    (row,) = post(english, "/logits", requests=[{"text": FOREIGN, "labels": ["a", FOREIGN]}])["results"]
    assert (row["unread_text"], row["unread_labels"]) == (True, [1])
    (row,) = post(english, "/logits", requests=[{"text": "door", "labels": ["a"]}])["results"]
    assert {"unread_text", "unread_labels"}.isdisjoint(row)


LOGITS = {"requests": [{"text": "a", "labels": ["b"]}, {"text": "a", "labels": ["b", FOREIGN]}]}


@pytest.mark.parametrize(
    ("path", "place", "body"),
    [
        ("/rerank", "passage 1", {"query": "door", "documents": ["door", FOREIGN]}),
        ("/rerank", "query", {"query": FOREIGN, "documents": ["door"]}),
        ("/check", "evidence 1", {"answer": "A door.", "evidence": ["door", FOREIGN]}),
        ("/route", "query 1", {"queries": ["door", FOREIGN], "routes": {"a": ""}}),
        ("/classify", "label 1", {"text": "door", "labels": ["a", FOREIGN]}),
        ("/logits", "label 1 of request 1", LOGITS),
    ],
)
def test_a_refusal_names_the_place_in_the_request(
    english: TestClient, path: str, place: str, body: dict[str, Any]
) -> None:
    """Where it was asked for, and where the tokenizer leaves nothing."""
    bodies = [json.loads(json.dumps(body, ensure_ascii=False).replace(FOREIGN, "~~"))]
    if path != "/logits":
        bodies.append({**body, "unreadable": "error"})
    for asked in bodies:
        response = english.post(path, json=asked)
        assert response.status_code == 422
        assert response.json()["message"].startswith(f"{place}: ")
        assert response.json()["error_type"] == "Tokenizer"
