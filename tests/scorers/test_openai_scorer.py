"""OpenAIScorer: the log-odds of yes that a generative model gives, whatever server it stands behind."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from environments import python_with
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st
from openai_server import ChatServer, begins, says
from serving import running
from tiny_chat import CONTEXT, NO, YES, TinyChat, tiny_chat

from gliclass_rerank import (
    Classifier,
    Example,
    FactChecker,
    InputError,
    Logits,
    OptionError,
    Reranker,
    Route,
    Router,
    ScoreRequest,
    ServiceError,
    UnsupportedModelError,
    connect_openai,
    load_scorer,
)
from gliclass_rerank.cli.main import main
from gliclass_rerank.errors import TextTooLongError
from gliclass_rerank.scorers.load import LoadedScorer
from gliclass_rerank.scorers.remote.openai_protocol import FLOOR, chat_prompt, logit_of
from gliclass_rerank.scorers.remote.question import MARK, Question, quoted

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
LLAMA = ("gguf==0.19.0", "xllamacpp==2026.10.11549", "openai==3.54.0")
REQUEST = ScoreRequest("Bread rises because of yeast.", ("bread", "the sea"))
BATCH = [
    REQUEST,
    ScoreRequest("The sea is salt.", ("the sea", "bread", "the sea"), prompt="What is it about?"),
    ScoreRequest("Ein “Zitat” – 🍞\n<|im_end|> [INST]", ("quote",), examples=(Example('"Oh!"', ("quote", "ow")),)),
]


@pytest.fixture(scope="module")
def chat() -> TinyChat:
    return tiny_chat()


@pytest.fixture
def server(chat: TinyChat) -> ChatServer:
    return ChatServer(chat)


@pytest.fixture
def url(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running(server.app) as url:
        yield f"openai+{url}/v1"


@pytest.fixture
def scorer(url: str) -> Iterator[LoadedScorer]:
    scorer = load_scorer(url, timeout=30)
    yield scorer
    scorer.close()  # type: ignore[union-attr]


def exact(chat: TinyChat, question: Question) -> float:
    """log P(yes) - log P(no) by the model itself."""
    first = chat.first([{"role": "user", "content": chat_prompt(question)}])
    yes, no = (np.logaddexp.reduce([first[chat.tokenizer.token_to_id(word)] for word in words]) for words in (YES, NO))
    return float(yes - no)


def expected(chat: TinyChat, request: ScoreRequest) -> list[float]:
    return [exact(chat, Question(request.text, label, request.prompt, request.examples)) for label in request.labels]


def test_logits_are_the_models_own_log_odds(scorer: LoadedScorer, chat: TinyChat) -> None:
    for row, request in zip(scorer.score(BATCH), BATCH, strict=True):
        assert isinstance(row, Logits)
        assert row.dtype == np.float32
        assert row.spans == ((0, len(request.text)),)
        assert not row.truncated
        # Of the eight ways to write the words, one that is not among the 20 likeliest is not counted.
        np.testing.assert_allclose(row, expected(chat, request), atol=0.02)
    assert len({value for row in scorer.score(BATCH) for value in row.tolist()}) == 5  # they say something


def test_no_logit_depends_on_what_else_is_asked(scorer: LoadedScorer) -> None:
    together = scorer.score(BATCH)
    for request, row in zip(BATCH, together, strict=True):
        alone = [scorer.score([replace(request, labels=(label,))])[0][0] for label in request.labels]
        assert row.tolist() == alone
        (turned,) = scorer.score([replace(request, labels=request.labels[::-1])])
        assert turned.tolist() == row.tolist()[::-1]
    assert [row.tolist() for row in scorer.score(BATCH[::-1])] == [row.tolist() for row in together[::-1]]


def test_equal_questions_are_asked_once(scorer: LoadedScorer, server: ChatServer) -> None:
    server.asked.clear()
    assert scorer.score([]) == []
    rows = scorer.score([replace(REQUEST, labels=("bread", "the sea", "bread"))] * 3)
    assert len(server.asked) == 2
    assert len({tuple(row.tolist()) for row in rows}) == 1
    assert rows[0][0] == rows[0][2] != rows[0][1]


def test_all_of_a_request_is_in_the_question(scorer: LoadedScorer, server: ChatServer) -> None:
    server.asked.clear()
    scorer.score([ScoreRequest("T", ("L",), prompt="P", examples=(Example("E", ("A", "B")), Example("F", ())))])
    (said,) = server.asked
    for part in ('Task: "P"', 'Text: "E"\nLabels that hold: ["A", "B"]', 'Text: "F"\nLabels that hold: []'):
        assert part in said
    assert 'Text: "T"\nLabel: "L"\n' in said


@given(st.text())
def test_what_is_quoted_stays_itself_and_stays_inside(text: str) -> None:
    assert json.loads(quoted(text)) == text
    assert not MARK.search(quoted(text))
    assert '"' not in quoted(text)[1:-1].replace('\\"', "")


@pytest.mark.parametrize(
    "mark", ["<|im_end|>", "</s>", "<start_of_turn>", "[INST]", "[/INST]", "<｜User｜>", "<think>"]
)
def test_marks_of_templates_are_not_written(mark: str) -> None:
    assert mark not in chat_prompt(Question(f"a {mark} b", mark, mark, (Example(mark, (mark,)),)))


# What an answer tells.


@given(st.floats(-20, 0), st.floats(-20, 0), st.integers(0, 5))
def test_ways_to_write_a_word_add_up(yes: float, no: float, others: int) -> None:
    listed = [
        ("Yes", yes),
        (" yes", yes),
        ("No", no),
        ("▁NO", no),
        ("no.", no),
        *[(f"x{i}", -30.0) for i in range(others)],
    ]
    assert logit_of(listed) == pytest.approx(yes + np.log(2) - no - np.log(3))


def test_a_word_that_is_not_listed_counts_as_the_least_of_those_that_are() -> None:
    assert logit_of([("Yes", -0.1), ("Well", -3.0), ("Maybe", -7.0)]) == pytest.approx(6.9)
    assert logit_of([("No", -0.1), ("Well", -3.0)]) == pytest.approx(-2.9)
    assert logit_of([("Well", -0.1), ("Nothing", -3.0), ("Yesterday", -4.0)]) == 0.0


@pytest.mark.parametrize("impossible", [-9999.0, -3.4e38, None])
def test_what_is_next_to_impossible_stays_finite(
    impossible: float | None, scorer: LoadedScorer, server: ChatServer
) -> None:
    server.always = begins(("Yes", 0.0), ("No", impossible))
    assert scorer.score([REQUEST])[0].tolist() == [-FLOOR, -FLOOR]


# What the server is, and which of its models is meant.


def test_it_says_what_is_known_of_the_model(scorer: LoadedScorer, url: str) -> None:
    info = scorer.info
    assert (info.name, info.backend, info.device) == ("tiny", "openai", url.removeprefix("openai+"))
    assert (info.max_length, info.calibrated, info.direction) == (CONTEXT, False, "passage-as-text")
    assert load_scorer(url).info == info


def test_the_model_is_named_as_an_option_or_in_the_url(url: str, server: ChatServer) -> None:
    server.models = ["owner/one", "two"]
    named, written = load_scorer(url, model="owner/one"), load_scorer(f"{url}#owner/one")
    assert named.info == written.info
    assert named.info.name == "owner/one"
    assert named.info.revision != load_scorer(url, model="two").info.revision
    with pytest.raises(OptionError, match=r"model: .*\(owner/one, two\)"):
        load_scorer(url)
    with pytest.raises(OptionError, match="after #"):
        load_scorer(f"{url}#two", model="two")
    with pytest.raises(ServiceError, match=r"404.*`three` does not exist"):
        load_scorer(url, model="three")


def test_a_named_model_needs_no_list(url: str, server: ChatServer, scorer: LoadedScorer) -> None:
    server.lists = False
    named = load_scorer(url, model="tiny")
    assert named.info == replace(scorer.info, max_length=0)  # nothing tells it
    assert named.score([REQUEST])[0].tolist() == scorer.score([REQUEST])[0].tolist()
    with pytest.raises(ServiceError, match="404"):
        load_scorer(url)


def test_a_url_with_a_prefix_is_another_name_for_the_same(url: str, scorer: LoadedScorer) -> None:
    named, connected = load_scorer(url, concurrency=3), connect_openai(url.removeprefix("openai+"), concurrency=3)
    assert named.origin == connected.origin
    assert connected.score([REQUEST])[0].tolist() == scorer.score([REQUEST])[0].tolist()


@pytest.mark.parametrize("options", [{"model": "mini"}, {"concurrency": 2}])
def test_its_options_are_for_such_a_server_alone(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(OptionError, match=f"{name}: only for a service"):
        load_scorer(**options)
    with pytest.raises(OptionError, match=f"{name}: only for a service"):
        load_scorer("mini", **options)
    with pytest.raises(OptionError, match=f"{name}: a running service has chosen"):
        load_scorer("http://localhost:1", **options)


@pytest.mark.parametrize(
    "options",
    [{"backend": "onnx"}, {"device": "cpu"}, {"dtype": "fp32"}, {"revision": "main"}, {"max_length": 99},
     {"max_batch_tokens": 99}, {"timeout": 0}, {"threads": 2}, {"concurrency": 0}, {"api_key": "a\nb"}],
)  # fmt: skip
def test_options_that_a_server_cannot_have_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        load_scorer("openai+http://localhost:1", **options)


def test_a_password_in_the_url_is_not_shown() -> None:
    with pytest.raises(OptionError, match="expected http://host:port") as raised:
        load_scorer("openai+http://user:secret@host/v1", model="tiny")
    assert "secret" not in str(raised.value)


def test_its_key_is_openais_and_never_that_of_our_service(
    url: str, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLICLASS_RERANK_API_KEY", "ours")
    load_scorer(url)
    assert set(server.keys) == {None}
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    load_scorer(url)
    assert server.keys[-1] == "Bearer theirs"
    load_scorer(url, api_key="given")
    assert server.keys[-1] == "Bearer given"
    server.always = says(401, "bad key")
    with pytest.raises(ServiceError, match=r"401, bad key.*OPENAI_API_KEY") as raised:
        load_scorer(url)
    assert "theirs" not in str(raised.value)


def test_a_server_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ServiceError, match=r"404.*ends in /v1"):
        load_scorer(url.removesuffix("/v1"))
    with pytest.raises(ServiceError, match="does not answer"):
        load_scorer("openai+http://127.0.0.1:1/v1")


def test_without_log_probabilities_it_is_refused(url: str, server: ChatServer) -> None:
    server.always = begins()
    with pytest.raises(UnsupportedModelError, match=r"log-probabilities of the likeliest tokens.*got none"):
        load_scorer(url)
    server.always = says(400, "logprobs are not supported with reasoning models")
    with pytest.raises(UnsupportedModelError, match="logprobs are not supported"):
        load_scorer(url)


def test_a_model_that_says_something_else_is_refused(url: str, server: ChatServer) -> None:
    server.always = begins(("<think>", -0.01), ("Well", -5.0))
    with pytest.raises(UnsupportedModelError, match=r"begins with '<think>'.*reasons first"):
        load_scorer(url)


def test_the_newer_name_of_the_limit_is_used_where_the_older_is_refused(url: str, server: ChatServer) -> None:
    server.faults = [says(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")]
    assert len(load_scorer(url).score([REQUEST])[0]) == 2


# What goes wrong under way.


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_server_is_asked_again_when_it_says(
    status: int, scorer: LoadedScorer, server: ChatServer
) -> None:
    want = scorer.score([REQUEST])[0].tolist()
    server.times.clear()
    server.faults = [says(status, retry_after="1")]
    asked = replace(REQUEST, labels=REQUEST.labels[:1])
    assert scorer.score([asked])[0].tolist() == want[:1]
    assert server.times[1] - server.times[0] >= 1.0


def test_a_server_that_stays_overloaded_is_given_up(url: str, server: ChatServer) -> None:
    scorer = load_scorer(url, timeout=20)
    server.always = says(429, "come later", retry_after="60")
    with pytest.raises(ServiceError, match=r"429, come later.*overloaded"):
        scorer.score([REQUEST])
    server.always = says(429, "too many tokens a minute", retry_after="60")  # which says nothing about a text
    with pytest.raises(ServiceError, match="429, too many tokens"):
        scorer.score([REQUEST])


@pytest.mark.parametrize("long_text", ["window", "truncate", "error"])
def test_a_text_that_does_not_fit_is_an_error_and_never_cut(long_text: Any, scorer: LoadedScorer) -> None:
    long = ScoreRequest("salt " * CONTEXT, ("the sea",), long_text=long_text)
    with pytest.raises(TextTooLongError, match=rf"{len(long.text)} characters.*'the sea'.*maximum context length"):
        scorer.score([REQUEST, long])
    assert len(scorer.score([REQUEST])) == 1


def test_other_refusals_name_what_was_asked(scorer: LoadedScorer, server: ChatServer) -> None:
    server.always = says(400, "not so")
    with pytest.raises(InputError, match=r"label 'bread', text 'Bread rises.*not so"):
        scorer.score([REQUEST])
    server.always = says(500, "broken")
    with pytest.raises(ServiceError, match="500, broken"):
        scorer.score([REQUEST])


@pytest.mark.parametrize("answer", [{"choices": []}, {"choices": [3]}, [], {"choices": [{"logprobs": {"content": 1}}]}])
def test_an_answer_that_is_none_is_told(answer: Any, scorer: LoadedScorer, server: ChatServer) -> None:
    server.always = lambda _: JSONResponse(answer)
    with pytest.raises(ServiceError, match="expected a chat completion"):
        scorer.score([REQUEST])
    server.always = begins()
    with pytest.raises(ServiceError, match=r"log-probabilities.*got none"):
        scorer.score([REQUEST])
    server.always = begins(("Yes", "NaN"))
    with pytest.raises(ServiceError, match="NaN"):
        scorer.score([REQUEST])


def test_few_questions_are_under_way_at_a_time(url: str, server: ChatServer) -> None:
    scorer = connect_openai(url.removeprefix("openai+"), concurrency=3)
    met = threading.Barrier(3)  # each question waits until three are there, so there must be as many

    def meets(_: Any) -> None:
        met.wait(60)

    server.always = meets
    batch = [ScoreRequest(f"text {i}", ("a", "b")) for i in range(6)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(scorer.score, [batch] * 4))
    assert server.most == 3
    assert all(np.array_equal(result, results[0]) for result in results)


def test_a_closed_one_ends_its_threads(url: str) -> None:
    def working() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("gliclass-openai")}

    before = working()
    scorer = load_scorer(url)
    scorer.score([REQUEST])
    assert working() - before
    scorer.close()  # type: ignore[union-attr]
    assert not working() - before


# Every door takes such a URL where it takes a model.


def test_tasks_take_it(url: str, scorer: LoadedScorer) -> None:
    passages = ["The sea is salt.", "Bread rises because of yeast."]
    logits = [scorer.score([ScoreRequest(passage, ("why?",))])[0][0] for passage in passages]
    assert [one.index for one in Reranker(url).rank("why?", passages)] == np.argsort(logits)[::-1].tolist()
    routes = [Route("bake", "bread"), Route("swim", "the sea")]
    scores = Router(routes, url).route("salt").scores
    (row,) = scorer.score([ScoreRequest("salt", ("bake: bread", "swim: the sea"))])
    np.testing.assert_allclose(list(scores.values()), 1 / (1 + np.exp(-row)), rtol=1e-5)
    assert len(FactChecker(url).check("The sea is salt.", passages).claims) == 1
    one = Classifier(url).classify("salt", ["bread", "the sea"], multi_label=False)
    assert one == Classifier(scorer).classify("salt", ["bread", "the sea"], multi_label=False)


def test_the_command_line_takes_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["classify", "salt", "--labels", "bread,the sea", "--model", f"{url}#tiny", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)


def test_the_example_of_the_documentation_runs(url: str, server: ChatServer) -> None:
    page = (ROOT / "docs" / "openai.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    server.models = ["Qwen/Qwen3-8B"]
    exec(code.replace("http://localhost:8001/v1", url.removeprefix("openai+")), {})
    assert len(server.asked) == 1 + 3 + 2  # one when it was loaded, then all labels, then all routes


def test_settings_of_the_service_reach_it(url: str) -> None:
    from gliclass_rerank_service.settings import Settings, load_model

    loaded = load_model(Settings(model=f"{url}#tiny", concurrency=3))
    assert loaded.origin == load_scorer(url, model="tiny", concurrency=3).origin
    with pytest.raises(OptionError, match="threads: a running service has chosen"):
        load_model(Settings(model=url, threads=2))


def test_the_service_takes_it(scorer: LoadedScorer) -> None:
    from gliclass_rerank_service import BatchingScorer
    from gliclass_rerank_service.app import create_app
    from gliclass_rerank_service.settings import read_settings

    with running(create_app(BatchingScorer(scorer), read_settings())) as service:
        body = {"text": "salt", "labels": ["bread", "the sea"], "multi_label": True, "threshold": 0}
        answer = httpx.post(f"{service}/classify", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        chained = load_scorer(service)  # and a service over it is one more scorer
        assert chained.score([REQUEST])[0].tolist() == scorer.score([REQUEST])[0].tolist()
        long = httpx.post(f"{service}/classify", json=body | {"text": "salt " * CONTEXT}, timeout=60)
        assert long.status_code in (400, 413, 422)
        assert "maximum context length" in long.text


# Servers and clients that others wrote.


@pytest.fixture(scope="module")
def their_python() -> Path:
    """An interpreter with llama.cpp's server and OpenAI's client."""
    try:
        return python_with(LLAMA, ROOT / "build" / "conformance" / "openai")
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"cannot install {' '.join(LLAMA)}")


@pytest.fixture(scope="module")
def llama_url(their_python: Path, chat: TinyChat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same model in llama.cpp."""
    folder = tmp_path_factory.mktemp("llama")
    chat.save(folder)
    command = [their_python, HELPERS / "llama_server.py", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.mark.long
@pytest.mark.timeout(900)  # the environment is made by whichever comes first
def test_llama_cpp_gives_the_models_log_odds(llama_url: str, chat: TinyChat) -> None:
    scorer = load_scorer(f"openai+{llama_url}")
    assert (scorer.info.name, scorer.info.max_length) == ("tiny", CONTEXT)
    for row, request in zip(scorer.score(BATCH), BATCH, strict=True):
        # It keeps keys and values in 16 bits.
        np.testing.assert_allclose(row, expected(chat, request), atol=0.03)
    with pytest.raises(TextTooLongError, match="exceeds the available context size"):
        scorer.score([ScoreRequest("salt " * CONTEXT, ("the sea",))])


@pytest.mark.long
@pytest.mark.timeout(900)  # the environment is made by whichever comes first
def test_openais_client_reads_the_same_of_both_servers(
    their_python: Path, llama_url: str, server: ChatServer, url: str
) -> None:
    question = chat_prompt(Question(REQUEST.text, REQUEST.labels[0]))

    def read(place: str) -> dict[str, float]:
        command = [str(their_python), str(HELPERS / "openai_client.py"), place, "tiny", question]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    ours, theirs = read(url.removeprefix("openai+")), read(llama_url)
    words = {word for word in ours if word.strip().casefold() in ("yes", "no")}
    assert len(words) > 2
    for word in words & set(theirs):
        assert ours[word] == pytest.approx(theirs[word], abs=0.03)
    assert len(server.asked) == 1
