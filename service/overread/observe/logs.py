"""The log: one line a record, as JSON or as plain text, without control characters and without patients.

Two kinds of text are not ours and may quote what stood in an image: messages of the DICOM libraries and the words of
exceptions. Of the libraries only warnings and worse pass, pydicom's and Python's own warnings without their text; an
exception keeps its words only if it is an OverreadError or an OSError, any other shows its class and where it rose.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

from overread.domain import events
from overread.domain.errors import OverreadError
from overread.domain.job import JobState

_log = logging.getLogger("overread.event")
_OWN: Final = ("overread", "root")
_LIBRARIES: Final = ("pynetdicom", "pydicom")
_WITHHELD: Final = "(text withheld, it may quote an image)"
_LONGEST: Final = 500
_FRAMES: Final = 8


def install(style: str, level: str, role: str, stream: TextIO | None = None) -> Callable[[], None]:
    """Make the root logger write to ``stream`` (default: stderr); returns what undoes it.

    ``style`` is json or text, ``level`` a name that logging knows (DEBUG … CRITICAL). Uncaught exceptions of the
    process and of threads, and Python warnings, go the same way. Raises ValueError for another style or level.
    """
    if style not in ("json", "text"):
        raise ValueError(f"log style is {style!r}; it can be json or text")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(role) if style == "json" else TextLines(role))
    handler.addFilter(discreet)
    root = logging.getLogger()
    before = (root.level, root.handlers[:], sys.excepthook, threading.excepthook)
    root.setLevel(level.upper())
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    sys.excepthook, threading.excepthook = _uncaught, _uncaught_in_thread

    def undo() -> None:
        logging.captureWarnings(False)
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        sys.excepthook, threading.excepthook = before[2], before[3]

    return undo


def discreet(record: logging.LogRecord) -> bool:
    """Whether a record may be written at all: below WARNING only overread's own are; what libraries have to say of
    their inner life would bury them, and those that handle DICOM quote it."""
    return record.name.partition(".")[0] in _OWN or record.levelno >= logging.WARNING


def log_event(event: events.Event) -> None:
    """A herald: one line an event; instances and counts at DEBUG, what an administrator should look at as WARNING,
    else INFO."""
    level = _level(event)
    if _log.isEnabledFor(level):
        told = {f.name: getattr(event, f.name) for f in fields(event)}
        name = type(event).__name__
        message = re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
        _log.log(level, message, extra={"event": name, "fields": told})


def _level(event: events.Event) -> int:
    match event:
        case (
            events.InstanceReceived()
            | events.InstancesIndexed()
            | events.SpoolDiscrepancy()
            | events.JobClaimed()
            | events.RequestAnswered(status=200)
        ):
            return logging.DEBUG  # of the latter two, what matters is logged where the study or the file is known
        case events.CertificatesNotTaken() | events.CanaryEnded(arrived=False):
            return logging.ERROR
        case events.DeliveryTried(outcome="verified" | "accepted" | "sent"):
            return logging.INFO
        case (
            events.WorkerDied()
            | events.WorkerUnconfined()
            | events.MemoryShort()
            | events.DeadlineMissed()
            | events.Trouble()
            | events.AssociationRefused()
            | events.InstanceRefused()
            | events.RequestAnswered()
            | events.DeliveryTried()
            | events.DeliveriesLost()
            | events.DestinationTurned(open=True)
            | events.JobMoved(after=JobState.FAILED)
            | events.ConnectionDropped(reason="handshake-refused" | "too-long" | "malformed")
            | events.CommitmentReported(outcome="unreachable" | "unanswered" | "refused" | "gave-up" | "nowhere")
        ):
            return logging.WARNING
    return logging.INFO


class JsonLines(logging.Formatter):
    """One JSON object a line: ts (UTC, ISO 8601), level, logger, room, role, message, an event's name and fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """ASCII only, so that no control or line-separating character is ever written as itself."""
        told = _parts(record, self._role)
        return json.dumps(told, ensure_ascii=True, default=str, separators=(",", ":"))


class TextLines(logging.Formatter):
    """For a terminal: time, level, role, logger, message, then key=value."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Characters that are not printable are written as \\x or \\u escapes."""
        told = _parts(record, self._role)
        head = f"{told.pop('ts')} {told.pop('level'):<7} {told.pop('role')} {told.pop('logger')}: {told.pop('message')}"
        for key in ("room", "event"):
            told.pop(key, None)
        rest = "".join(f" {key}={_plain(value)}" for key, value in told.items())
        return _escape(head + rest)


def _parts(record: logging.LogRecord, role: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
        "room": _room(record.name),
        "role": role,
        "message": _message(record)[:_LONGEST],
    }
    event = getattr(record, "event", None)
    if event is not None:
        told["event"] = event
    given = getattr(record, "fields", None)
    if isinstance(given, Mapping):
        told.update({str(k): _short(v) for k, v in given.items() if k not in told})
    if record.exc_info and record.exc_info[1] is not None:
        told["exception"] = _exception(record.exc_info[1])
    return told


def _room(logger: str) -> str:
    parts = logger.split(".")
    return parts[1] if parts[0] == "overread" and len(parts) > 1 else parts[0]


def _message(record: logging.LogRecord) -> str:
    top = record.name.partition(".")[0]
    if isinstance(record.msg, BaseException):
        return _words(record.msg)
    if top == "pydicom":
        return f"{record.module}:{record.lineno} {_WITHHELD}"
    message = _formatted(record)
    if record.name == "py.warnings":
        where = re.match(r"[^\n]*?:\d+: \w+", message)
        return f"{where.group() if where else 'a warning'} {_WITHHELD}"
    return message.partition("\n")[0] if top == "pynetdicom" else message


def _formatted(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # a wrong format string must not cost the line
        return str(record.msg)


def _words(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, OverreadError | OSError) else f"{name} {_WITHHELD}"


def _exception(error: BaseException) -> str:
    """The chain of causes, innermost last, each with its last frames; never the values in them."""
    told, seen = [], set[int]()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        frames = traceback.extract_tb(here.__traceback__)[-_FRAMES:]
        trail = " > ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames)
        told.append(f"{_words(here)[:_LONGEST]} at {trail}" if trail else _words(here)[:_LONGEST])
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)
    return "; from ".join(told)


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    return str(value)[:_LONGEST]


def _plain(value: Any) -> str:
    text = str(value)
    return text if text and not re.search(r"[\s\"=]", text) else json.dumps(text, ensure_ascii=False)


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("overread").critical("uncaught, the process ends", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread else "?"
    trouble = (args.exc_type, args.exc_value, args.exc_traceback)
    logging.getLogger("overread").critical("uncaught, thread %s ends", name, exc_info=trouble)
