"""HttpScorer: a service scores as the model in it does, and whatever it does wrong is waited out or told."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from conftest import MINI, needs_mini
from fakes import OverlapScorer, ShortScorer
from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from gliclass_rerank_langchain import GLiClassRerank as LangChainRerank
from gliclass_rerank_llama_index import GLiClassRerank as LlamaIndexRerank
from gliclass_rerank_service import BatchingScorer, Settings, create_app
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from noisy_service import CALIBRATED, KEY, Fault, NoisyScorer, Service, assert_same, needs_key, serving

from gliclass_rerank import (
    Example,
    FactChecker,
    GLiClassRerankError,
    InputError,
    LabelTooLongError,
    Logits,
    OptionError,
    Reranker,
    Route,
    Router,
    ScoreRequest,
    ServiceError,
    load_scorer,
)
from gliclass_rerank.cli.main import main
from gliclass_rerank.models.encoding import chunk_sizes
from gliclass_rerank.scorers.remote.service import HttpScorer
from gliclass_rerank.types import FloatArray
from gliclass_rerank.validation import is_blank

REQUEST = ScoreRequest("salt comes from the sea", ("sea salt", "bread"))

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: not is_blank(text)
)
requests = st.builds(
    ScoreRequest,
    texts,
    st.lists(texts, min_size=1, max_size=3).map(tuple),
    prompt=texts | st.just(""),
    examples=st.lists(st.builds(Example, texts, st.lists(texts, max_size=2).map(tuple)), max_size=2).map(tuple),
    long_text=st.sampled_from(["window", "truncate"]),
)


def says(status: int, message: str = "no", **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: JSONResponse({"message": message, "error": message}, status, named)


def drops(_: Request) -> Response:
    """Close the connection in the middle of an answer."""
    return PlainTextResponse("{", headers={"content-length": "1000"})


@pytest.fixture
def service() -> Service:
    return Service(NoisyScorer(), max_client_batch_size=3)


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    with serving(service.app) as url:
        yield url


@pytest.fixture
def scorer(url: str) -> Iterator[HttpScorer]:
    with HttpScorer(url, timeout=20) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def steady() -> Iterator[HttpScorer]:
    with serving(Service(NoisyScorer(), max_client_batch_size=3).app) as url, HttpScorer(url) as scorer:
        yield scorer


def test_what_is_sent_beside_the_text_counts_for_a_chunk() -> None:
    """Prompts, labels and examples travel with each request."""
    shown = (Example("e" * 50, ("f" * 7,)),)
    assert list(chunk_sizes([ScoreRequest("t", ("l",) * 2, "p" * 9, shown), ScoreRequest("t", ("l",))])) == [69, 2]


@settings(max_examples=40)
@given(batch=st.lists(requests, max_size=11))
def test_a_service_scores_as_its_model(steady: HttpScorer, batch: list[ScoreRequest]) -> None:
    assert_same(steady.score(batch), NoisyScorer().score(batch))


def test_it_says_what_its_model_says(scorer: HttpScorer, url: str) -> None:
    assert scorer.info == replace(CALIBRATED, backend="http", device=url)
    assert scorer.info.calibrated


def test_scores_without_windows_stay_without() -> None:
    with serving(Service(OverlapScorer()).app) as url, HttpScorer(url) as scorer:
        (row,) = scorer.score([REQUEST])
        assert row.tolist() == [1.0, -3.0]
        assert row.spans == ()


def test_many_requests_go_in_chunks_that_the_service_takes(scorer: HttpScorer, service: Service) -> None:
    assert scorer.score([]) == []
    assert service.sizes == []
    scorer.score([replace(REQUEST, text=f"text {i}") for i in range(20)])
    assert sorted(service.sizes) == [2, 3, 3, 3, 3, 3, 3]


def test_few_chunks_are_under_way_at_a_time() -> None:
    lock, now, most = threading.Lock(), 0, 0
    met = threading.Barrier(4)

    class Counting(NoisyScorer):
        def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            met.wait(60)  # each waits until four are here, so there must be as many
            with lock:
                now -= 1
            return super().score(requests)

    with serving(Service(Counting(), max_client_batch_size=1).app) as url, HttpScorer(url) as scorer:
        scorer.score([REQUEST] * 24)
    assert most == 4


def test_what_is_too_large_is_halved(scorer: HttpScorer, service: Service) -> None:
    service.always = lambda request: (
        JSONResponse({"message": "too large"}, 413) if int(request.headers["content-length"]) > 200 else None
    )
    batch = [replace(REQUEST, text=f"text {i}") for i in range(6)]
    assert_same(scorer.score(batch), NoisyScorer().score(batch))
    assert sum(service.sizes) == 6
    assert max(service.sizes) < 3
    with pytest.raises(InputError, match="too large"):
        scorer.score([replace(REQUEST, text="long " * 100)])


def test_a_refusal_in_the_second_half_names_its_place(scorer: HttpScorer, service: Service) -> None:
    service.faults = [says(413, "too large"), None, says(422, "this one")]
    with pytest.raises(InputError, match=r"\(requests 1 to 2 of the call\): this one"):
        scorer.score([replace(REQUEST, text=f"text {i}") for i in range(3)])


def test_after_an_error_the_other_chunks_are_not_sent() -> None:
    gate = threading.Event()

    class Gated(NoisyScorer):
        def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
            assert gate.wait(60)
            return super().score(requests)

    service = Service(Gated(), max_client_batch_size=1)
    with serving(service.app) as url, HttpScorer(url) as scorer:
        service.faults = [says(422, "this one")] * 4  # whatever chunk comes first
        with pytest.raises(InputError, match="this one"):
            scorer.score([REQUEST] * 40)
        service.faults = []
        gate.set()
        scorer.score([REQUEST] * 2)  # behind all that still waits
        assert len(service.times) <= 1 + 4 + 8 + 2  # /info, those refused, those that were under way


def test_a_label_too_long_for_the_services_model_is_told_apart() -> None:
    answer = "Berlin has lakes, " * 9 + "and it is old. It is big."
    with serving(create_app(ShortScorer(), Settings())) as url, HttpScorer(url) as scorer:
        with pytest.raises(LabelTooLongError, match="refuses"):
            scorer.score([ScoreRequest("a", ("b" * 61,))])
        assert FactChecker(scorer).check(answer, "Berlin has lakes.") == (
            FactChecker(ShortScorer()).check(answer, "Berlin has lakes.")
        )


def test_threads_may_share_one(scorer: HttpScorer) -> None:
    batches = [[replace(REQUEST, text=f"{n} {i}") for i in range(n)] for n in range(1, 13)]
    with ThreadPoolExecutor(12) as pool:
        for batch, got in zip(batches, pool.map(scorer.score, batches), strict=True):
            assert_same(got, NoisyScorer().score(batch))


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_service_is_asked_again_when_it_says(status: int, scorer: HttpScorer, service: Service) -> None:
    service.times.clear()
    service.faults = [says(status, retry_after="1"), says(status), None]
    assert_same(scorer.score([REQUEST]), NoisyScorer().score([REQUEST]))
    assert len(service.times) == 3
    assert service.times[1] - service.times[0] >= 1.0  # it was told to stay away so long


def test_a_retry_after_may_be_a_date(scorer: HttpScorer, service: Service) -> None:
    service.times.clear()
    # HTTP dates have whole seconds.
    service.faults = [lambda _: JSONResponse({}, 503, {"retry-after": formatdate(time.time() + 2, usegmt=True)})]
    scorer.score([REQUEST])
    assert service.times[1] - service.times[0] >= 0.9


@pytest.mark.parametrize("retry_after", ["soon", "-5", "0", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(retry_after: str, scorer: HttpScorer, service: Service) -> None:
    service.faults = [says(429, retry_after=retry_after)]
    assert len(scorer.score([REQUEST])) == 1


def test_a_service_that_stays_overloaded_is_given_up(url: str, service: Service) -> None:
    with HttpScorer(url, timeout=60) as scorer:
        service.times.clear()
        service.always = says(429, "come later")
        with pytest.raises(ServiceError, match=r"429, come later.*overloaded") as raised:
            scorer.score([REQUEST])
        assert raised.value.status == 429
        assert len(service.times) == 8
        service.times.clear()
        service.always = says(429, retry_after="3600")
        with pytest.raises(ServiceError, match="overloaded"):
            scorer.score([REQUEST])
        assert len(service.times) == 1  # it said when: later than anybody waits here


def test_a_dropped_connection_is_made_again(scorer: HttpScorer, service: Service) -> None:
    service.faults = [drops, drops, None]
    assert_same(scorer.score([REQUEST]), NoisyScorer().score([REQUEST]))


def test_a_service_that_restarts_is_found_again() -> None:
    service = Service(NoisyScorer())
    with serving(service.app) as url:
        scorer = HttpScorer(url)
        port = int(url.rpartition(":")[2])
    started = threading.Event()

    def restart() -> None:
        started.wait()
        time.sleep(0.3)
        server.run()

    server = uvicorn.Server(uvicorn.Config(service.app, port=port, log_level="critical"))
    thread = threading.Thread(target=restart)
    thread.start()
    started.set()
    try:
        assert_same(scorer.score([REQUEST]), NoisyScorer().score([REQUEST]))
    finally:
        server.should_exit = True
        thread.join()
        scorer.close()


def test_a_slow_service_is_not_waited_for_longer_than_the_timeout(url: str, service: Service) -> None:
    given_up, answered = threading.Event(), threading.Event()

    def waits(_: Request) -> Response | None:
        answered.set() if given_up.wait(60) else None
        return None

    with HttpScorer(url, timeout=5) as scorer:
        service.always = waits
        with pytest.raises(ServiceError, match=r"does not answer.*timeout="):
            scorer.score([REQUEST])
        assert not answered.is_set()
        given_up.set()


def test_nobody_at_the_url_is_a_clear_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ServiceError, match=rf"{url} does not answer.*check that the service runs"):
            load_scorer(url, timeout=1)


def test_keys(url: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.always = needs_key
    with pytest.raises(ServiceError, match=r"401.*api_key=") as raised:
        load_scorer(url)
    assert raised.value.status == 401
    with pytest.raises(ServiceError) as raised:
        load_scorer(url, api_key="a wrong one")
    assert "a wrong one" not in str(raised.value)
    assert load_scorer(url, api_key=KEY).score([REQUEST])
    monkeypatch.setenv("GLICLASS_RERANK_API_KEY", KEY)
    assert load_scorer(url).score([REQUEST])
    with pytest.raises(ServiceError, match="401"):  # what is passed counts
        load_scorer(url, api_key="another")


def test_what_the_service_refuses_is_an_input_error(scorer: HttpScorer, service: Service) -> None:
    service.always = says(422, "label 'x': 900 tokens, shorten it")
    with pytest.raises(InputError, match="900 tokens, shorten it"):
        scorer.score([REQUEST])
    service.faults = [says(422, "this one")]
    service.always = None
    with pytest.raises(InputError, match=r"requests [036] to [257] of the call"):
        scorer.score([REQUEST] * 8)
    assert len(scorer.score([REQUEST] * 8)) == 8  # it goes on


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"not json",
        b'{"revision": "1"}',
        b'{"revision": "1", "results": []}',
        b'{"revision": "1", "results": [{"logits": [1.0], "spans": [], "truncated": false}]}',
        b'{"revision":"1","results": [{"logits": [1, 2], "spans":[[0,1]], "truncated": false, "unread_labels": [2]}]}',
        b'{"revision": "1", "results": [{"logits": [1.0, NaN], "spans": [], "truncated": false}]}',
        b'{"revision": "1", "results": [{"logits": [1.0, 1e39], "spans": [], "truncated": false}]}',
        b'{"revision": "1", "results": [{"logits": [1.0, 2.0], "spans": [[0, 1], [1, 2]], "truncated": false}]}',
        b'{"revision": "1", "results": [{"logits": "no", "spans": 1}]}',
    ],
)
def test_an_answer_that_is_none_is_told(answer: bytes, scorer: HttpScorer, service: Service) -> None:
    service.always = lambda _: Response(answer)
    with pytest.raises(ServiceError, match=r"/logits: expected|changed its model"):
        scorer.score([REQUEST])


@pytest.mark.parametrize(
    "change",
    [
        {"gliclass": None},
        {"gliclass": {}},
        {"max_client_batch_size": "many"},
        {"gliclass": {"direction": "sideways"}},
    ],
)
def test_a_service_of_others_is_refused(change: dict[str, Any], url: str, service: Service) -> None:
    service.info |= change
    with pytest.raises(ServiceError, match=r"/info: expected what gliclass-rerank says"):
        load_scorer(url)


def test_a_bad_calibration_is_told(url: str, service: Service) -> None:
    service.info["gliclass"]["calibration"] = {"labels": {"kind": "guess"}}
    with pytest.raises(ServiceError, match="labels"):
        load_scorer(url)


def test_other_failures_are_told_with_their_status(url: str, service: Service) -> None:
    with pytest.raises(ServiceError, match=r"404.*expected a gliclass-rerank service"):
        load_scorer(f"{url}/elsewhere")
    service.always = says(500, "broken")
    with pytest.raises(ServiceError, match="500, broken") as raised:
        load_scorer(url)
    assert raised.value.status == 500
    assert len(service.times) == 1  # nothing says that a second attempt would fare better


def test_another_model_is_not_read_with_the_calibration_of_the_first(scorer: HttpScorer, service: Service) -> None:
    service.scorer.info = replace(CALIBRATED, revision="2")  # type: ignore[misc]
    with pytest.raises(ServiceError, match=r"changed its model.*revision 1.*at 2; load the scorer again"):
        scorer.score([REQUEST])


@pytest.mark.parametrize(
    "bad", ["http://", "http://:80", "http://host:port", "http://user:secret@host", "http://host?a=b", "http://a b"]
)
def test_a_url_that_names_no_service_is_refused(bad: str) -> None:
    with pytest.raises(OptionError, match="expected http://host:port") as raised:
        load_scorer(bad)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "onnx"}, {"device": "cpu"}, {"dtype": "fp32"}, {"threads": 1}, {"revision": "main"},
        {"max_length": 99}, {"max_batch_tokens": 99}, {"timeout": 0}, {"timeout": float("nan")}, {"api_key": "a\nb"},
    ],
)  # fmt: skip
def test_options_that_a_service_cannot_have_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        load_scorer("http://localhost:1", **options)


@pytest.mark.parametrize("options", [{"api_key": "secret"}, {"timeout": 7.0}])
def test_options_of_services_are_refused_for_models(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(options))}: only for a service") as raised:
        load_scorer("mini", **options)
    assert "secret" not in str(raised.value)


def test_a_closed_one_ends_its_threads(url: str) -> None:
    def working() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("gliclass-http")}

    before = working()
    with HttpScorer(url) as scorer:
        scorer.score([REQUEST] * 9)
        assert working() - before
    assert not working() - before


def test_httpx_is_imported_when_a_service_is_meant() -> None:
    code = "import sys, gliclass_rerank, gliclass_rerank.scorers.remote.service; print('httpx' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_without_httpx_the_error_names_the_extra() -> None:
    code = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "httpx" else real(name, package)
from gliclass_rerank import MissingExtraError, load_scorer
try:
    load_scorer("http://localhost:1")
except MissingExtraError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'gliclass-rerank[http]'" in found.stdout


# Every door takes a URL where it takes a model.

QUERY = "how is bread made?"
PASSAGES = ["The sea is salt.", "Bread rises because yeast turns sugar into gas.", "Bread is made of flour and water."]


@pytest.fixture(scope="module")
def overlap_url() -> Iterator[str]:
    with serving(Service(OverlapScorer(window=3)).app) as url:
        yield url


def test_tasks_take_a_url(overlap_url: str) -> None:
    local = OverlapScorer(window=3)
    assert Reranker(overlap_url).rank(QUERY, PASSAGES) == Reranker(local).rank(QUERY, PASSAGES)
    routes = [Route("bake", "bread and flour"), Route("swim", "sea and salt")]
    assert Router(routes, overlap_url).route(QUERY) == Router(routes, local).route(QUERY)
    assert FactChecker(overlap_url).check(PASSAGES[0], PASSAGES) == FactChecker(local).check(PASSAGES[0], PASSAGES)


def test_adapters_take_a_url(overlap_url: str) -> None:
    expected = [PASSAGES[ranked.index] for ranked in Reranker(OverlapScorer(window=3)).rank(QUERY, PASSAGES, top_n=2)]
    nodes = [NodeWithScore(node=TextNode(text=passage)) for passage in PASSAGES]
    reordered = LlamaIndexRerank(model=overlap_url, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.get_content() for node in reordered] == expected
    documents = [Document(passage) for passage in PASSAGES]
    kept = LangChainRerank(model=overlap_url, top_n=2).compress_documents(documents, QUERY)
    assert [document.page_content for document in kept] == expected


def test_the_command_line_takes_a_url(overlap_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, passage in enumerate(PASSAGES):
        (tmp_path / f"{i}.txt").write_text(passage)
    with pytest.raises(SystemExit) as ended:
        main(["rerank", QUERY, str(tmp_path), "--model", overlap_url, "--top-n", "1", "--json"])
    assert ended.value.code == 0
    best = Reranker(OverlapScorer(window=3)).rank(QUERY, PASSAGES)[0]
    assert json.loads(capsys.readouterr().out)["results"][0]["index"] == best.index


# The real service.


@needs_mini
def test_the_real_service_says_which_labels_share_a_pass() -> None:
    from gliclass_rerank_service.app import create_app
    from gliclass_rerank_service.settings import read_settings

    local = load_scorer(MINI)
    few, many = ["billing and refunds"] * 8, ["账单发票退款支付订单配送物流密码登录账户安全"] * 16
    shown = [Example("It was bad. " * 50, ("no",))]
    with serving(create_app(BatchingScorer(local), read_settings())) as url, HttpScorer(url) as scorer:
        for labels, examples in ((few, []), (many, []), (few, shown)):
            assert scorer.labels_share_pass(labels, examples) == local.labels_share_pass(labels, examples)
        assert scorer.labels_share_pass(few)
        assert not scorer.labels_share_pass(many)
        with pytest.raises(InputError, match="label 1"):
            scorer.labels_share_pass(["billing", " "])


@needs_mini
@pytest.mark.parametrize("max_texts", [2048, 4])
def test_the_real_service_scores_as_its_model(max_texts: int) -> None:
    from gliclass_rerank_service.app import create_app
    from gliclass_rerank_service.settings import read_settings

    local = load_scorer(MINI)
    batch = [
        ScoreRequest("Bread rises because yeast turns sugar into gas.", ("how bread rises", "the sea", "the sea")),
        ScoreRequest("The sea is salt. " * 300, ("what the sea is made of",)),
        ScoreRequest("The sea is salt. " * 300, ("what the sea is made of", "bread"), long_text="truncate"),
        ScoreRequest("Ein “Zitat” – 🍞 und <<LABEL>>.", ("quote", "bread"), prompt="What is it about?"),
        ScoreRequest("Was it good?", ("yes", "no"), examples=(Example("It was bad.", ("no",)),)),
        *[ScoreRequest(passage, (QUERY,)) for passage in PASSAGES],
    ]
    app = create_app(BatchingScorer(local), read_settings(flags={"max_texts": max_texts}))
    with serving(app) as url, HttpScorer(url) as scorer:
        assert scorer.info == replace(local.info, backend="http", device=url)
        for ours, theirs in zip(scorer.score(batch), local.score(batch), strict=True):
            assert isinstance(ours, Logits)
            assert isinstance(theirs, Logits)
            assert (ours.spans, ours.truncated) == (theirs.spans, theirs.truncated)
            # Not bit by bit: what else is in a batch moves the last bits of a sum.
            np.testing.assert_allclose(ours.per_window, theirs.per_window, atol=1e-5)
        found, expected = ([one.index for one in Reranker(by).rank(QUERY, PASSAGES)] for by in (scorer, local))
        assert found == expected
        for count in (16, 40):  # read together, and one by one
            routes = [Route(f"topic {i}", f"questions about the topic with number {i}") for i in range(count)]
            here, there = (Router(routes, by).route(QUERY).scores for by in (local, scorer))
            assert there == pytest.approx(here, abs=1e-5)
        with pytest.raises(InputError, match="labels are never cut"):
            scorer.score([ScoreRequest("Bread.", ("word " * 5000,))])


def test_every_error_is_of_our_tree() -> None:
    assert issubclass(ServiceError, GLiClassRerankError)
