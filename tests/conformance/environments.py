"""A virtual environment for each group of clients that get along. The three need three versions of cohere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Environment:
    """Distributions at known versions, and the scripts in `clients/` that run with them.

    Attributes:
        vectors: whether the scripts ask for vectors, which not every model gives.
    """

    requirements: tuple[str, ...]
    scripts: tuple[str, ...]
    vectors: bool = False


ENVIRONMENTS = {
    "cohere": Environment(
        ("cohere==7.3.1", "rerankers==0.10.0", "requests==2.34.2"),
        ("cohere_v2", "cohere_v1", "rerankers_api"),
    ),
    "langchain": Environment(
        (
            "cohere==5.21.1",
            "langchain-cohere==0.6.0",
            "langchain-community==0.4.2",
            "infinity-client==0.0.78",
            "voyageai==0.5.0",
        ),
        ("langchain_cohere_rerank", "langchain_infinity", "langchain_jina", "voyage"),
    ),
    "llama-index": Environment(
        (
            "cohere==6.1.0",
            "llama-index-postprocessor-cohere-rerank==0.10.0",
            "llama-index-postprocessor-tei-rerank==0.6.0",
            "llama-index-postprocessor-jinaai-rerank==0.6.0",
            "llama-index-postprocessor-xinference-rerank==0.5.0",
        ),
        ("llama_index_rerank",),
    ),
    "embeddings": Environment(
        ("openai==3.57.0", "llama-index-embeddings-text-embeddings-inference==0.6.0"), ("embeddings",), vectors=True
    ),
    "decisions": Environment(
        (
            "openai==3.57.0",
            "typesafe-sdk==0.7.5",
            "langchain-openai==1.7.4",
            "pydantic-ai-slim==2.68.0",
            "dspy==3.4.1",
            "litellm==1.110.2",
            "jevcompat==0.1.1",
            "zstandard==0.25.0",
        ),
        ("decisions_systemone", "decisions_openai"),
    ),
    "plain": Environment((), ("plain_http",)),
}


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made below ``folder`` unless it is there already."""
    return python_with(ENVIRONMENTS[name].requirements, folder / name)


def python_with(requirements: Sequence[str], home: Path) -> Path:
    """The interpreter of an environment with these distributions, which is made in ``home`` unless it is there."""
    wanted = "\n".join(requirements)
    made = home / "requirements.txt"
    if not (made.is_file() and made.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        if requirements:
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
            # The versions of a client are its own: a lock of ours that constrains pip would contradict them.
            environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
            subprocess.run([home / "bin" / "python", *install], check=True, stdin=subprocess.DEVNULL, env=environment)
        made.write_text(wanted)
    return home / "bin" / "python"
