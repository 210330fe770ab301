"""Connect to a model on a server by its URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gliclass_rerank.validation import refuse_options

if TYPE_CHECKING:
    from gliclass_rerank.scorers.remote.named_model import NamedModelScorer
    from gliclass_rerank.scorers.remote.openai import OpenAIScorer
    from gliclass_rerank.scorers.remote.service import HttpScorer

URL = re.compile(r"((?P<api>openai|systemone|decisions)\+)?https?://", re.IGNORECASE)
TIMEOUT = 60.0  # seconds
CHOSEN = "a running service has chosen this itself; leave it out beside a URL"


def connect_openai(
    url: str,
    *,
    model: str | None = None,
    concurrency: int | None = None,
    api_key: str | None = None,
    timeout: float = TIMEOUT,
) -> OpenAIScorer:
    """Connect to a generative model on an OpenAI-compatible server, and check that it can score.

    Args:
        url: URL of the API, "http://host:8001/v1". "http://host:8001/v1#name" includes the model's name.
        model: its name on that server. Optional if the server has one model.
        concurrency: questions sent at a time, over all calling threads; 16 by default.
        api_key: default: ``OPENAI_API_KEY`` of the environment, if set.
        timeout: seconds in which a question must be answered, pauses and retries included, > 0.

    Raises:
        MissingExtraError, OptionError, ServiceError, UnsupportedModelError: see `OpenAIScorer`.
    """
    from gliclass_rerank.scorers.remote.openai import OpenAIScorer

    return OpenAIScorer(url, model=model, api_key=api_key, timeout=timeout, **_given(concurrency))


def connect(
    url: str,
    *,
    model: str | None = None,
    concurrency: int | None = None,
    api_key: str | None = None,
    timeout: float = TIMEOUT,
) -> HttpScorer | NamedModelScorer:
    """Connect to a gliclass-rerank service, or to a server of the API in front of the URL, "systemone+http://..."."""
    found = URL.match(url)
    api = found["api"].lower() if found and found["api"] else None
    if api is None:
        from gliclass_rerank.scorers.remote.service import HttpScorer

        refuse_options({"model": model, "concurrency": concurrency}, CHOSEN)
        return HttpScorer(url, api_key=api_key, timeout=timeout)
    place = url[len(api) + 1 :]
    if api == "openai":
        return connect_openai(place, model=model, concurrency=concurrency, api_key=api_key, timeout=timeout)
    from gliclass_rerank.scorers.remote.decisions import DecisionsScorer, SystemoneScorer

    made = SystemoneScorer if api == "systemone" else DecisionsScorer
    return made(place, model=model, api_key=api_key, timeout=timeout, **_given(concurrency))


def _given(concurrency: int | None) -> dict[str, int]:
    """The option, unless it is left to the scorer."""
    return {} if concurrency is None else {"concurrency": concurrency}
