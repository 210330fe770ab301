"""Files of a router: readable JSON with its routes, options and fit, and a safetensors file with its vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gliclass_rerank.calibration.file import calibrator_from_dict
from gliclass_rerank.errors import CheckpointError, InputError, NoVectorsError, OptionError
from gliclass_rerank.tasks.routing.fit import LABEL_ALONE, Fitted, Lesson, Rule
from gliclass_rerank.tasks.routing.head import FEATURES
from gliclass_rerank.tasks.routing.outcomes import Floats
from gliclass_rerank.tasks.routing.reader import State
from gliclass_rerank.tasks.routing.routes import Route, check_names, examples_of
from gliclass_rerank.tasks.routing.vector_file import (
    VectorFile,
    arrays_of,
    as_bytes,
    digest,
    read_vector_file,
    write_whole,
)
from gliclass_rerank.types import ModelInfo
from gliclass_rerank.validation import check_number, check_texts

FILE_VERSION = 2
READ_VERSIONS = (1, 2)
FIELDS = ("version", "model", "routes", "examples", "threshold", "fallback", "fitted", "vectors")
ROUTE_FIELDS = ("name", "description", "examples")
NEEDED_OF_FIT = ("calibrator", "thresholds", "multi_thresholds")
FITTED_FIELDS = (*NEEDED_OF_FIT, "weights", "queries")
QUERY_FIELDS = ("text", "name")
VECTOR_FIELDS = ("file", "sha256", "texts")
CORRECT = "correct it, or save the router anew"

Queries = tuple[tuple[str, ...], tuple[str | None, ...]]
"""Queries that a router was fitted on, and the names of their routes."""


def write_file(state: State, options: Mapping[str, object], model: tuple[str, str], path: str | Path) -> None:
    """Write a router.

    Args:
        state: of the router.
        options: further fields of the file.
        model: name and revision of the model in use.
        path: the JSON file. One of vectors beside it has the same stem.

    Raises:
        InputError: a file cannot be written.
    """
    file, fitted = Path(path), state.fitted
    name, revision = fitted.model if fitted else model
    saved = {
        "version": FILE_VERSION,
        "model": {"name": name, "revision": revision},
        "routes": [asdict(route) for route in state.routes],
        **options,
        "fitted": fitted and _fitted_as_dict(fitted, state.names),
    }
    contents = {}
    if state.head:
        beside = file.with_suffix(".safetensors")
        if beside == file:
            raise InputError(f"{path}: expected another suffix, since the vectors are saved there; take .json")
        contents[beside] = as_bytes(arrays_of(state))
        lesson = fitted.lesson if fitted else None
        texts = _digest_of_texts(state.routes, (lesson.texts, lesson.names) if lesson else None)
        saved["vectors"] = {"file": beside.name, "sha256": digest(contents[beside]), "texts": texts}
    contents[file] = (json.dumps(saved, indent=2, ensure_ascii=False) + "\n").encode()
    for place, content in contents.items():
        write_whole(place, content)


def read_file(path: str | Path) -> dict[str, Any]:
    """Read the fields of a router and check the version, the fields of each route, and that no field is unknown.

    An object of strings alone, {"name": "description", ...}, is read as routes.

    Raises:
        InputError: the file does not exist.
        CheckpointError: the file holds no router, or one of another version.
    """
    try:
        saved = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: expected a router's file: {error}; write one with Router.save") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}; {CORRECT}") from error
    if not isinstance(saved, dict):
        raise CheckpointError(f"{path}: expected an object, got {saved!r:.60}; {CORRECT}")
    if not saved:
        raise CheckpointError(f'{path}: expected at least one route, {{"name": "description", ...}}, got none')
    if all(isinstance(value, str) for value in saved.values()):  # written by hand: name and description
        routes = [{"name": name, "description": description} for name, description in saved.items()]
        saved = {"version": FILE_VERSION, "routes": routes}
    version = saved.get("version")
    if type(version) is not int or version not in READ_VERSIONS:
        raise CheckpointError(
            f"{path}, version: expected {' or '.join(map(str, READ_VERSIONS))}, got {version!r:.60}; is it a later "
            "release's?"
        )
    _check_fields(saved, ("version", "routes"), FIELDS, f"{path}")
    if not isinstance(saved["routes"], list):
        raise CheckpointError(f"{path}, routes: expected a list, got {saved['routes']!r:.60}; {CORRECT}")
    for i, route in enumerate(saved["routes"]):
        _check_fields(route, ("name",), ROUTE_FIELDS, f"{path}, routes[{i}]")
    return saved


def state_of(saved: Mapping[str, Any], routes: tuple[Route, ...], info: ModelInfo, path: str | Path) -> State:
    """The state in the fields of a file.

    Args:
        saved: as returned by `read_file`.
        routes: those in it.
        info: of the model that is to be used.
        path: for errors, and to find the vectors beside it.

    Raises:
        CheckpointError: fitted on another model, fields that `write_file` does not write, or a file of vectors that is
            missing or another one.
        NoVectorsError: it has vectors, and the model none.
    """
    value = saved.get("fitted")
    if value is not None:
        _check_model(saved.get("model"), (info.name, info.revision), path)
        _check_fields(value, NEEDED_OF_FIT, FITTED_FIELDS, f"{path}, fitted")
    queries = None if value is None else _queries(value, routes, path)
    beside = None if saved.get("vectors") is None else _beside(saved, routes, queries, info, path)
    fitted = None if value is None else _fitted(value, routes, queries, beside, (info.name, info.revision), path)
    if beside is None:
        return State(routes, fitted=fitted)
    texts = examples_of(routes)
    vectors = beside.get("examples", len(texts), beside.width) if texts else ()
    return State(routes, dict(zip(texts, vectors, strict=True)), fitted).with_head()


def _fitted_as_dict(fitted: Fitted, names: Sequence[str]) -> dict[str, object]:
    """The fit as in the file. The model has a field of its own there, and arrays have another file."""
    lesson, rule = fitted.lesson, fitted.rule
    pairs = zip(lesson.texts, lesson.names, strict=True) if lesson else ()
    return {
        "calibrator": rule.calibrator and rule.calibrator.as_dict(),
        "thresholds": dict(zip(names, rule.thresholds.tolist(), strict=True)),
        "multi_thresholds": dict(zip(names, rule.multi_thresholds.tolist(), strict=True)),
        "weights": dict(zip(FEATURES, rule.weights.tolist(), strict=True)) if rule.has_head else None,
        "queries": [{"text": text, "name": name} for text, name in pairs] if lesson else None,
    }


def _fitted(
    value: Mapping[str, Any],
    routes: Sequence[Route],
    queries: Queries | None,
    beside: VectorFile | None,
    model: tuple[str, str],
    path: str | Path,
) -> Fitted:
    where, names, weights = f"{path}, fitted", [route.name for route in routes], value.get("weights")
    if (weights is None) != (beside is None) or (beside and not queries):
        raise CheckpointError(
            f"{where}: expected weights, queries and vectors, or neither weights nor vectors; {CORRECT}"
        )
    calibrator = value["calibrator"]
    lesson = regression = None
    if queries:
        texts, own = queries
        logits, vectors = np.full((len(texts), len(names)), np.nan), np.empty((len(texts), 0), np.float32)
        if beside:
            vectors = beside.get("queries", len(texts), beside.width)
            logits = beside.get("logits", len(texts), len(names)).astype(np.float64)
            regression = beside.regression(len(names))
        lesson = Lesson(texts, own, logits, vectors)
    rule = Rule(
        LABEL_ALONE if weights is None else _numbers(weights, FEATURES, f"{where}.weights"),
        None if calibrator is None else calibrator_from_dict(calibrator, f"{where}.calibrator"),
        _numbers(value["thresholds"], names, f"{where}.thresholds", low=0, high=1),
        _numbers(value["multi_thresholds"], names, f"{where}.multi_thresholds", low=0, high=1),
    )
    return Fitted(model, rule, regression, lesson)


def _queries(value: Mapping[str, Any], routes: Sequence[Route], path: str | Path) -> Queries | None:
    """The queries that a router was fitted on, and their routes' names. None in files of version 1."""
    queries, where = value.get("queries"), f"{path}, fitted.queries"
    if queries is None:
        return None
    if not isinstance(queries, list):
        raise CheckpointError(f"{where}: expected a list, got {queries!r:.60}; {CORRECT}")
    entries = [_check_fields(one, QUERY_FIELDS, QUERY_FIELDS, f"{where}[{i}]") for i, one in enumerate(queries)]
    try:
        texts = check_texts([one["text"] for one in entries], "query", plural="queries")
        return texts, check_names([one["name"] for one in entries], len(texts), routes)
    except InputError as error:
        raise CheckpointError(f"{where}: {error}; {CORRECT}") from error


def _beside(
    saved: Mapping[str, Any], routes: Sequence[Route], queries: Queries | None, info: ModelInfo, path: str | Path
) -> VectorFile | None:
    """The file of vectors. None if the router is not fitted and has other texts or another model by now."""
    fields = _check_fields(saved["vectors"], VECTOR_FIELDS, VECTOR_FIELDS, f"{path}, vectors")
    same_texts = fields["texts"] == _digest_of_texts(routes, queries)
    same_model = saved.get("model") == {"name": info.name, "revision": info.revision} and info.embeds
    if saved.get("fitted") is None and not (same_texts and same_model):
        return None
    if not same_texts:
        raise CheckpointError(
            f"{path}: expected the routes and queries that it was saved with, got others, changed by hand; change them "
            "with Router.add, add_examples and remove, or fit a new router"
        )
    if not info.embeds:
        raise NoVectorsError(info.name)
    return read_vector_file(Path(path).parent / Path(f"{fields['file']}").name, fields["sha256"])


def _digest_of_texts(routes: Sequence[Route], queries: Queries | None) -> str:
    """SHA-256 of all texts that arrays depend on."""
    return digest(json.dumps([[asdict(route) for route in routes], queries]).encode())


def _check_fields(value: object, needed: Sequence[str], known: Sequence[str], where: str) -> dict[str, Any]:
    """Return ``value`` if it is an object with all needed fields and no unknown ones."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected an object, got {value!r:.60}; {CORRECT}")
    if missing := [name for name in needed if name not in value]:
        raise CheckpointError(f"{where}: expected the field {missing[0]!r}, got none; {CORRECT}")
    if unknown := [name for name in value if name not in known]:
        raise CheckpointError(f"{where}: expected no fields but {', '.join(known)}, got {unknown[0]!r:.60}; {CORRECT}")
    return value


def _check_model(saved: object, used: tuple[str, str], path: str | Path) -> None:
    fields = _check_fields(saved, ("name", "revision"), ("name", "revision"), f"{path}, model")
    if (fields["name"], fields["revision"]) != used:
        raise CheckpointError(
            f"{path}, model: expected {fields['name']!r:.80} of revision {fields['revision']!r:.80}, on which it was "
            f"fitted, got {used[0]!r} of {used[1]!r}; pass that model (scorer=, or on the command line "
            "--model), or fit the router anew"
        )


def _numbers(
    value: object, names: Sequence[str], where: str, *, low: float = -math.inf, high: float = math.inf
) -> Floats:
    fields = _check_fields(value, names, names, where)
    try:
        return np.array([check_number(fields[name], repr(name), low=low, high=high) for name in names])
    except OptionError as error:
        raise CheckpointError(f"{where}, {error}; {CORRECT}") from error
