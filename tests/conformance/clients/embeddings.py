"""OpenAI's client, and LlamaIndex's of TEI, which looks at no status: a refusal is an object where it reads a list."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import mul

from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from openai import AuthenticationError, OpenAI, UnprocessableEntityError
from trial import Call, Client, Hit, conduct

Vector = Sequence[float]


def cosines(call: Call, embed: Callable[[list[str]], Sequence[Vector]]) -> list[Hit]:
    """Cosine of the query and each document in Latin script, in the order of the documents."""
    places = [i for i, text in enumerate(call.documents) if text[0].isascii()][: call.top_n]
    query, *vectors = embed([call.query, *(call.documents[i] for i in places)])
    return [Hit(i, sum(map(mul, query, vector))) for i, vector in zip(places, vectors, strict=True)]


def openai(call: Call) -> list[Hit]:
    """As base64, which it asks for by itself."""
    client = OpenAI(base_url=f"{call.url}/v1", api_key=call.key or "none")

    def embed(texts: list[str]) -> list[Vector]:
        answer = client.embeddings.create(model="any", input=texts, user="somebody")
        assert answer.usage.total_tokens == answer.usage.prompt_tokens > 0
        return [one.embedding for one in answer.data]

    return cosines(call, embed)


def openai_floats(call: Call) -> list[Hit]:
    """One text at a time, as numbers."""
    client = OpenAI(base_url=f"{call.url}/v1", api_key=call.key or "none")

    def embed(texts: list[str]) -> list[Vector]:
        answers = [client.embeddings.create(model="any", input=text, encoding_format="float") for text in texts]
        return [answer.data[0].embedding for answer in answers]

    return cosines(call, embed)


def tei(call: Call) -> list[Hit]:
    client = TextEmbeddingsInference("any", base_url=call.url, auth_token=call.key, truncate_text=False)

    def embed(texts: list[str]) -> list[Vector]:
        return [client.get_query_embedding(texts[0]), *client.get_text_embedding_batch(texts[1:])]

    return cosines(call, embed)


conduct(
    Client(
        "OpenAI, embeddings",
        ["openai"],
        'OpenAI(base_url=URL + "/v1", api_key=key)',
        openai,
        wrong_key=AuthenticationError,
        empty_query=UnprocessableEntityError,
        also={"float": openai_floats},
        kind="vectors",
    ),
    Client(
        "LlamaIndex `TextEmbeddingsInference`",
        ["llama-index-embeddings-text-embeddings-inference"],
        "TextEmbeddingsInference(NAME, base_url=URL, auth_token=key, truncate_text=False)",
        tei,
        wrong_key=KeyError,
        empty_query=KeyError,
        busy=KeyError,
        kind="vectors",
    ),
)
