"""Thousands of generated requests, valid and not: nothing fails, and whatever comes back is documented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from checkpoints import build_independent
from conftest import Scorers
from fastapi import FastAPI
from gliclass_rerank_service import Settings, create_app
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import running

from gliclass_rerank import load_scorer

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = {GenerationMode.POSITIVE: 170, GenerationMode.NEGATIVE: 130}  # an operation
LEAST = 3_000  # of all


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_no_generated_request_meets_an_error_that_is_not_documented(scorers: Scorers) -> None:
    statuses = statuses_of(create_app(scorers("bert-simple", "onnx"), Settings()))
    assert sum(statuses.values()) >= LEAST
    assert {200, 202, 400, 404, 422} <= set(statuses)  # the generator got through, and was refused


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nor_does_one_for_vectors_where_the_model_gives_them(tmp_path: Path) -> None:
    app = create_app(load_scorer(build_independent(tmp_path)), Settings())
    assert {200, 400, 422} <= set(statuses_of(app, ["/v1/embeddings", "/embed", "/logits"]))


def statuses_of(app: FastAPI, paths: Sequence[str] = ()) -> Counter[int]:
    """Send generated requests to each operation, or to those of some paths, and count the statuses."""
    statuses: Counter[int] = Counter()
    schema = schemathesis.openapi.from_dict(app.openapi())
    with running(app) as url, requests.Session() as session:
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            if paths and operation.path not in paths:
                continue
            # Where there is no body nothing can be wrong, and mostly nothing can differ.
            modes = EXAMPLES if operation.body else {GenerationMode.POSITIVE: 50 if operation.path_parameters else 1}
            for mode, examples in modes.items():

                @settings(
                    max_examples=examples,
                    database=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck),
                )
                @given(operation.as_strategy(mode))
                def check(case: Case[Any]) -> None:
                    response = case.call_and_validate(url, session, checks=CHECKS, timeout=60)
                    statuses[response.status_code] += 1

                check()
    return statuses
