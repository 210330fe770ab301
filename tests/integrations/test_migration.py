"""docs/migration.md as code: what it says to write runs on real data, and gives what the code before it gave.

Every "after" runs as it stands. So does every "before" that works offline, on a tiny random cross-encoder under the
name that it asks for, or on a language model that answers by rote. FlashRank downloads its model, Cohere wants a key:
those blocks are compiled, and what they import is looked up where their packages are installed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")
pytest.importorskip("langchain_core")

from conftest import MINI, needs_mini
from langchain_core.documents import Document
from llama_index.core.base.response.schema import Response
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool

from gliclass_rerank import Reranker

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
SECTION = re.compile(r"^## (\w+) .*?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The first block of a section is what was there before, the others are what may follow.
BLOCKS = {name: BLOCK.findall(text) for name, text in SECTION.findall(PAGE.read_text("utf-8"))}
AFTER = [(name, block) for name, (_, *after) in BLOCKS.items() for block in after]

NOT_OFFLINE = ("FlashRankRerank", "CohereRerank")
CROSS_ENCODERS = ("cross-encoder/ms-marco-MiniLM-L6-v2", "BAAI/bge-reranker-base")  # by the names that are asked for

QUERY = "how many people live in Berlin?"
PASSAGES = [
    "Paris is the capital of France.",
    "The mitochondrion is the powerhouse of the cell.",
    "Berlin, the German capital, has 3.7 million inhabitants.",
    "The Danube flows through ten countries.",
    "Berlin, the German capital, has 3.7 million inhabitants.",
]
FIRST_STAGE = [0.7, 0.2, 0.6, 0.1, 0.6]


class RoteLLM(CustomLLM):
    """Always selects the first choice, in the words that a selector asks for."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text='[{"choice": 1, "reason": "it is the first"}]')

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


class NamedEngine(CustomQueryEngine):
    name: str

    def custom_query(self, query_str: str) -> str:
        return self.name


def tool(name: str, description: str) -> QueryEngineTool:
    return QueryEngineTool.from_defaults(NamedEngine(name=name), name=name, description=description)


def given() -> dict[str, Any]:
    """What the page says that its snippets find."""
    return {
        "query": QUERY,
        "nodes": [
            NodeWithScore(node=TextNode(id_=str(i), text=text), score=score)
            for i, (text, score) in enumerate(zip(PASSAGES, FIRST_STAGE, strict=True))
        ],
        "documents": [Document(text, id=str(i), metadata={"page": i}) for i, text in enumerate(PASSAGES)],
        "tools": [
            tool("cities", "questions about cities and who lives there"),
            tool("cooking", "recipes and ingredients"),
            tool("general", "whatever else"),
        ],
        "llm": RoteLLM(),
    }


def run(block: str) -> dict[str, Any]:
    """Run a block on what is given, and return all that then has a name: ``best`` or ``response`` among it."""
    names = given()
    exec(compile(block, str(PAGE), "exec"), names)  # the page is ours
    return names


@cache
def ran_once(block: str) -> dict[str, Any]:
    return run(block)


def after(block: str) -> dict[str, Any]:
    """Run one of our blocks, once for all tests, since each loads the model; skip where it needs what is not there."""
    needs(block)
    return ran_once(block)


def score_of(found: NodeWithScore | Document) -> float | None:
    return found.score if isinstance(found, NodeWithScore) else found.metadata.get("relevance_score")


def text_of(found: NodeWithScore | Document) -> str:
    return found.text if isinstance(found, NodeWithScore) else found.page_content


def imports(block: str) -> Iterator[tuple[str, str]]:
    """Module and name of each ``from module import name``."""
    for statement in ast.walk(ast.parse(block)):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            yield from ((statement.module, alias.name) for alias in statement.names)


def needs(block: str) -> None:
    """Skip the test where what a block imports is not installed."""
    for module, _ in imports(block):
        pytest.importorskip(module)


@pytest.fixture(scope="module")
def mini() -> Reranker:
    return Reranker("mini")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds tiny cross-encoders where a hub would be asked for them."""
    pytest.importorskip("sentence_transformers")
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("hub")
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(MINI / "tokenizer.json"), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        initializer_range=1.0,
    )  # fmt: skip
    config.num_labels = 1
    for name in CROSS_ENCODERS:
        tokenizer.save_pretrained(root / name)
        BertForSequenceClassification(config).save_pretrained(root / name)
    return root


def test_the_page_has_the_five() -> None:
    assert set(BLOCKS) == {*NOT_OFFLINE, "SentenceTransformerRerank", "LLMSingleSelector", "CrossEncoderReranker"}
    assert all(len(blocks) >= 2 for blocks in BLOCKS.values())


@needs_mini
@pytest.mark.parametrize("block", sorted({block for _, block in AFTER if "best = " in block}))
def test_what_comes_after_orders_by_score_and_leaves_what_came(block: str, mini: Reranker) -> None:
    ran = after(block)
    prior = FIRST_STAGE if "use_first_stage_scores=True" in block else None
    ranking = mini.rank(QUERY, PASSAGES, top_n=3, first_stage_scores=prior)
    assert [text_of(found) for found in ran["best"]] == [PASSAGES[ranked.index] for ranked in ranking]
    if "GLiClassCrossEncoder" not in block:  # the framework's reranker throws scores away
        assert [score_of(found) for found in ran["best"]] == [ranked.score for ranked in ranking]
    untouched = given()
    assert {key: ran[key] for key in ("nodes", "documents")} == {key: untouched[key] for key in ("nodes", "documents")}


@needs_mini
@pytest.mark.parametrize("name", ["SentenceTransformerRerank", "CrossEncoderReranker"])
def test_what_came_before_gives_the_same_kind_of_result(
    name: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, *afters = BLOCKS[name]
    needs(before)
    monkeypatch.chdir(models)
    theirs = run(before)["best"]
    if name == "SentenceTransformerRerank":  # the other one throws its scores away
        assert [found.score for found in theirs] == sorted((found.score for found in theirs), reverse=True)
    for block in afters:
        ours = after(block)["best"]
        assert (type(ours), len(ours)) == (type(theirs), len(theirs))
        assert {type(found) for found in ours} == {type(found) for found in theirs}


@needs_mini
def test_selectors_select_one_engine_which_answers() -> None:
    before, block = BLOCKS["LLMSingleSelector"]
    theirs, ours = run(before), after(block)
    results: list[Any] = []
    for ran in (theirs, ours):
        response = ran["response"]
        assert type(response) is Response
        assert response.response == "cities"
        results.append((response.metadata or {})["selector_result"])
    assert type(results[0]) is type(results[1])
    assert [result.inds for result in results] == [[0], [0]]
    metadata = [tool.metadata for tool in ours["tools"]]
    assert ours["selector"].select(metadata, "which ingredients do I need for a soup recipe?").ind == 1
    assert ours["selector"].select(metadata, "zzz").ind == 2  # the fallback


@pytest.mark.parametrize("name", NOT_OFFLINE)
def test_what_came_before_and_needs_a_network_is_python_and_names_what_there_is(name: str) -> None:
    before = BLOCKS[name][0]
    compile(before, str(PAGE), "exec")
    for module, name_there in imports(before):
        package = pytest.importorskip(module, reason="compiled only: its package is not installed")
        assert hasattr(package, name_there)
