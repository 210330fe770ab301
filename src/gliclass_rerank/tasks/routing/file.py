"""File of a router: readable JSON with its routes, options and fitted calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gliclass_rerank.calibration.file import calibrator_from_dict
from gliclass_rerank.errors import CheckpointError, InputError, OptionError
from gliclass_rerank.tasks.routing.fit import Fitted
from gliclass_rerank.validation import check_number

FILE_VERSION = 1
FIELDS = ("version", "model", "routes", "examples", "threshold", "fallback", "fitted")
ROUTE_FIELDS = ("name", "description", "examples")
FITTED_FIELDS = ("calibrator", "thresholds", "multi_thresholds")
CORRECT = "correct it, or save the router anew"


def write_file(saved: Mapping[str, object], path: str | Path) -> None:
    """Write the fields of a router.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise InputError(f"{path}: expected a place to write to: {error}; is there such a folder?") from error


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
        saved = {
            "version": FILE_VERSION,
            "routes": [{"name": name, "description": description} for name, description in saved.items()],
        }
    version = saved.get("version")
    if type(version) is not int or version != FILE_VERSION:
        raise CheckpointError(
            f"{path}, version: expected {FILE_VERSION}, got {version!r:.60}; is it a later release's?"
        )
    _check_fields(saved, ("version", "routes"), FIELDS, f"{path}")
    if not isinstance(saved["routes"], list):
        raise CheckpointError(f"{path}, routes: expected a list, got {saved['routes']!r:.60}; {CORRECT}")
    for i, route in enumerate(saved["routes"]):
        _check_fields(route, ("name",), ROUTE_FIELDS, f"{path}, routes[{i}]")
    return saved


def fitted_as_dict(fitted: Fitted, names: Sequence[str]) -> dict[str, object]:
    """Fitted calibration and thresholds as in the file. The model has a field of its own there."""
    return {
        "calibrator": fitted.calibrator and fitted.calibrator.as_dict(),
        "thresholds": dict(zip(names, fitted.thresholds, strict=True)),
        "multi_thresholds": dict(zip(names, fitted.multi_thresholds, strict=True)),
    }


def read_fitted(
    saved: Mapping[str, object], names: Sequence[str], model: tuple[str, str], path: str | Path
) -> Fitted | None:
    """Fitted calibration and thresholds from the fields of a file, or None if the router was not fitted.

    Args:
        saved: as returned by `read_file`.
        names: of the routes.
        model: name and revision of the model that is to be used.
        path: for errors.

    Raises:
        CheckpointError: fitted on another model, or not the output of `fitted_as_dict` for these routes.
    """
    value = saved.get("fitted")
    if value is None:
        return None
    _check_model(saved.get("model"), model, path)
    where = f"{path}, fitted"
    fields = _check_fields(value, FITTED_FIELDS, FITTED_FIELDS, where)
    calibrator = fields["calibrator"]
    return Fitted(
        model,
        None if calibrator is None else calibrator_from_dict(calibrator, f"{where}.calibrator"),
        _thresholds(fields["thresholds"], names, f"{where}.thresholds"),
        _thresholds(fields["multi_thresholds"], names, f"{where}.multi_thresholds"),
    )


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


def _thresholds(value: object, names: Sequence[str], where: str) -> tuple[float, ...]:
    fields = _check_fields(value, names, names, where)
    try:
        return tuple(check_number(fields[name], repr(name), low=0, high=1) for name in names)
    except OptionError as error:
        raise CheckpointError(f"{where}, {error}; {CORRECT}") from error
