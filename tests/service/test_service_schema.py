"""Thousands of generated requests, valid and not: nothing fails, and whatever comes back is documented."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import requests
import schemathesis
from conftest import Scorers
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

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = {GenerationMode.POSITIVE: 170, GenerationMode.NEGATIVE: 130}  # an operation
LEAST = 3_000  # of all


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_no_generated_request_meets_an_error_that_is_not_documented(scorers: Scorers) -> None:
    statuses: Counter[int] = Counter()
    app = create_app(scorers("bert-simple", "onnx"), Settings())
    schema = schemathesis.openapi.from_dict(app.openapi())
    with running(app) as url, requests.Session() as session:
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
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
    assert sum(statuses.values()) >= LEAST
    assert {200, 202, 400, 404, 422} <= set(statuses)  # the generator got through, and was refused
