"""Structured logs: one JSON object per line, with the fields of `extra`, and without texts of users.

Messages of exceptions may quote a text, so only the class and the frames of an exception are logged.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import datetime, timezone

OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, the fields of ``extra``, and the class and frames of an exception."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        # Other libraries (Ray, for example) add fields that begin with "_" to every record.
        told |= {name: value for name, value in vars(record).items() if name not in OWN and not name.startswith("_")}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            told["error"] = record.exc_info[0].__name__
            told["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(told, default=str)


def configure_logging(level: str) -> None:
    """Send all logs of this process to stderr as JSON. For a server process only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("uvicorn.access", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
