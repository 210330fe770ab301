"""The file of a model's calibrators: JSON, an object with a calibrator for each task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from gliclass_rerank.calibration.calibrators import KINDS, Calibrator
from gliclass_rerank.errors import CheckpointError, InputError, OptionError

CALIBRATION_FILE = "calibration.json"
REFIT = "fit it anew, or delete it to go without"


def calibrator_from_dict(value: object, where: str | Path) -> Calibrator:
    """Create a calibrator from the output of `Calibrator.as_dict`.

    Args:
        value: an object of a JSON file.
        where: the file, and optionally the position in it, for errors.

    Raises:
        CheckpointError: another object, or numbers that are no calibration.
    """
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(kind, str) or kind not in KINDS:
        expected = ", ".join(map(repr, KINDS))
        raise CheckpointError(
            f"{where}: expected an object whose kind is one of {expected}, got {value!r:.60}; {REFIT}"
        )
    numbers = {entry.name for entry in fields(KINDS[kind])} - {"fitted_on"}
    given = {key: entry for key, entry in value.items() if key != "kind"}
    if given.keys() - {"fitted_on"} != numbers:
        names = ", ".join(sorted(numbers))
        raise CheckpointError(f"{where}: {kind} has {names}, got {', '.join(map(str, given)) or 'none'}; {REFIT}")
    try:
        calibrator: Calibrator = KINDS[kind](**given)
    except OptionError as error:
        raise CheckpointError(f"{where}: {error}; {REFIT}") from error
    return calibrator


def read_calibration(folder: str | Path) -> dict[str, Calibrator]:
    """Read the calibrators of a model folder (``calibration.json``), by task. Empty without such a file.

    Tasks are "relevance", "support", "refutation", "labels", and those of decisions
    (`gliclass_rerank.tasks.decide.answers.task_of`). Others are kept unchanged.

    Raises:
        CheckpointError: the file is not readable, or no such mapping.
    """
    file = Path(folder) / CALIBRATION_FILE
    if not file.is_file():
        return {}
    try:
        tasks = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not readable as JSON: {error}; {REFIT}") from error
    if not isinstance(tasks, dict):
        raise CheckpointError(f"{file}: expected an object with a calibrator per task, got {tasks!r:.60}; {REFIT}")
    return {task: calibrator_from_dict(value, f"{file}, {task}") for task, value in tasks.items()}


def write_calibration(folder: str | Path, calibration: Mapping[str, Calibrator]) -> None:
    """Write the calibrators of a model folder, by task, and replace all existing ones.

    Raises:
        InputError: no such folder, or a value that is no `Calibrator`.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: expected a model's folder, got none; make it first")
    for task, calibrator in calibration.items():
        if not isinstance(task, str) or not isinstance(calibrator, Calibrator):
            raise InputError(
                f"calibration: expected a Calibrator by the name of its task, got {task!r}: {calibrator!r}"
            )
    tasks = {task: calibrator.as_dict() for task, calibrator in calibration.items()}
    (Path(folder) / CALIBRATION_FILE).write_text(json.dumps(tasks, indent=2) + "\n", "utf-8")
