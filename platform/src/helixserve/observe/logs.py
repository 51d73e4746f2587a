"""Logs: one JSON object a line on standard output, or text for people (`HELIX_LOG_FORMAT=text`).

A line tells of a request by its ids, never by its values. What an exception says may quote a
value, so a traceback is logged as its types and places, without their messages.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from helixserve.observe.call import OK, Call

FORMATS = ("json", "text")
IDS = 256
"""Prediction ids that a line names at most."""

logger = logging.getLogger("helixserve.calls")


def configure(form: str) -> None:
    """Send every logger of this process to standard output in one form; ours are heard from INFO on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.getLogger().handlers = [handler]
    for name in ("bentoml", "uvicorn.error", "circus"):  # BentoML gives these handlers of their own
        other = logging.getLogger(name)
        other.handlers, other.propagate = [], True
    for name in ("helixserve", "helix_lineage"):
        logging.getLogger(name).setLevel(logging.INFO)


def line(call: Call, shard: str | None) -> None:
    """Tell of a request that has ended."""
    if not logger.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {
        "request_id": call.request_id.hex(),
        "endpoint": call.endpoint,
        "task": call.task,
        "status": call.status,
        "milliseconds": _milliseconds(call.total_seconds),
        **{f"{phase}_milliseconds": _milliseconds(seconds) for phase, seconds in call.seconds.items()},
        "shard": shard,
        "items": len(call.prediction_ids),
        "prediction_ids": call.prediction_ids[:IDS],
    }
    if call.trace_id:
        fields["trace_id"] = call.trace_id
    level = logging.ERROR if call.status in ("INTERNAL", "UNKNOWN") else logging.INFO
    logger.log(level, "request ended" if call.status == OK else "request refused", extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        value = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            value["exception"] = _places(record.exc_info[1])
        return json.dumps(value, default=str)


class TextFormatter(logging.Formatter):
    """One line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = getattr(record, "fields", {})
        told = " ".join(f"{name}={_flat(value)}" for name, value in fields.items())
        text = f"{_time(record)} {record.levelname:7} {record.name}: {record.getMessage()} {told}".rstrip()
        if record.exc_info:
            text += "".join(f"\n    {place}" for place in _places(record.exc_info[1]))
        return text


def _places(error: BaseException | None) -> list[str]:
    """Types and places of an exception and of what caused it, innermost first; no message, no source line."""
    found = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found.append(type(error).__name__)
        frames = reversed(traceback.extract_tb(error.__traceback__, limit=-20))
        found += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        error = error.__cause__ or error.__context__
    return found


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _flat(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
