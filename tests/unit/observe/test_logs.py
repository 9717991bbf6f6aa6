"""One line a record, whatever is in it, and nothing of a patient."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from overread.domain import events
from overread.domain.errors import Unreachable
from overread.observe.logs import install, log_event

EVIL = "a\nb\r\x00\x1b[31m\x7f\x85\u2028\u2029\udc80\tend"


class Log:
    """What was written, by line."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().split("\n")[:-1]

    @property
    def last(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.lines[-1])
        return parsed


@pytest.fixture
def begin() -> Iterator[Callable[[str, str], Log]]:
    """Installs logging into a string; puts everything back afterwards."""
    undo: list[Callable[[], None]] = []

    def start(style: str = "json", level: str = "DEBUG") -> Log:
        log = Log()
        undo.append(install(style, level, "watch", log.stream))
        return log

    yield start
    for one in reversed(undo):
        one()


def test_a_record_is_one_json_object(begin: Callable[..., Log]) -> None:
    log = begin()
    logging.getLogger("overread.deliver.dimse").info("sent %d", 3)
    told = log.last
    assert told.pop("ts").endswith("Z")
    assert told == {
        "level": "INFO",
        "logger": "overread.deliver.dimse",
        "room": "deliver",
        "role": "watch",
        "message": "sent 3",
    }


@pytest.mark.parametrize("style", ["json", "text"])
def test_no_record_has_a_second_line_or_a_control_character(begin: Callable[..., Log], style: str) -> None:
    log = begin(style)
    logging.getLogger("overread.receive").warning(EVIL)
    log_event(events.AssociationRefused(EVIL, EVIL, EVIL))
    try:
        raise Unreachable(EVIL)
    except Unreachable:
        logging.getLogger("overread.deliver").exception("failed")
    text = log.stream.getvalue()
    assert len(text.splitlines()) == text.count("\n") == 3
    assert all(c == "\n" or c.isprintable() for c in text)


def test_a_secret_of_an_exception_is_not_written(begin: Callable[..., Log]) -> None:
    """Own words are kept, those of others are not, wherever they stand in the chain."""
    log = begin()
    try:
        try:
            raise ValueError("invalid value for PN: 'Doe^John'")
        except ValueError as error:
            raise Unreachable("pacs does not answer") from error
    except Unreachable:
        logging.getLogger("overread.deliver").exception("failed")
    told = log.last["exception"]
    assert "Unreachable: pacs does not answer at test_logs.py:" in told
    assert "from ValueError" in told
    assert "Doe" not in log.stream.getvalue()


def test_dicom_libraries_say_nothing_below_warning(begin: Callable[..., Log]) -> None:
    log = begin()
    for name in ("pynetdicom", "pynetdicom.assoc", "pynetdicom._handlers", "pydicom", "pydicom.filereader"):
        logging.getLogger(name).debug("(0010,0010) PN 'Doe^John'")
        logging.getLogger(name).info("Doe^John")
    assert not log.lines


def test_dicom_libraries_warn_without_quoting_an_image(begin: Callable[..., Log]) -> None:
    log = begin()
    logging.getLogger("pydicom").warning("Invalid value for VR PN: 'Doe^John'")
    assert "withheld" in log.last["message"]
    logging.getLogger("pynetdicom.assoc").error("Association Aborted\n(0010,0010) Doe^John")
    assert log.last["message"] == "Association Aborted"
    try:
        raise ValueError("Doe^John")
    except ValueError as error:
        logging.getLogger("pynetdicom.assoc").exception(error)
    assert log.last["message"].startswith("ValueError ")
    assert "Doe" not in log.stream.getvalue()


def test_python_warnings_come_without_their_text(begin: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings._formatwarning_orig)  # ITK puts its own there
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log = begin()
        warnings.warn("Invalid value for VR UI: 'Doe^John'", UserWarning, stacklevel=1)
        begin_text = log.last["message"]
    assert "test_logs.py:" in begin_text
    assert "UserWarning" in begin_text
    assert "Doe" not in log.stream.getvalue()


def test_what_nobody_catches_is_logged_discreetly(begin: Callable[..., Log]) -> None:
    log = begin()

    def fail() -> None:
        raise ValueError("Doe^John")

    thread = threading.Thread(target=fail, name="clock")
    thread.start()
    thread.join()
    assert (log.last["level"], log.last["message"]) == ("CRITICAL", "uncaught, thread clock ends")
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    assert log.last["message"] == "uncaught, the process ends"
    assert "ValueError" in log.last["exception"]
    assert "Doe" not in log.stream.getvalue()


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (events.InstanceReceived("CT1", "1.2.3", "1.2", 9, 0.1), "DEBUG"),
        (events.InstancesIndexed(500, 0, 1), "DEBUG"),
        (events.SpoolDiscrepancy("missing", 3), "DEBUG"),
        (events.AssociationOpened("CT1", "127.0.0.1"), "INFO"),
        (events.StudyCompleted("1.2.3", 3, 0), "INFO"),
        (events.JobMoved(7, "ct_chest", "1.2.3", "RUNNING", "DELIVERING", ""), "INFO"),
        (events.JobMoved(7, "ct_chest", "1.2.3", "RUNNING", "FAILED", "gave up"), "WARNING"),
        (events.DeliveryTried("pacs", "seg", "verified", 0.2), "INFO"),
        (events.DeliveryTried("pacs", "seg", "unreachable", 0.2), "WARNING"),
        (events.WorkerDied("ct_chest", "memory"), "WARNING"),
        (events.AssociationRefused("WHO", "127.0.0.1", "calling-ae"), "WARNING"),
        (events.Trouble("deliver", "OSError"), "WARNING"),
    ],
)
def test_events_are_logged_at_their_level(begin: Callable[..., Log], event: events.Event, level: str) -> None:
    log = begin()
    log_event(event)
    assert (log.last["level"], log.last["event"]) == (level, type(event).__name__)


def test_an_event_brings_its_fields(begin: Callable[..., Log]) -> None:
    log = begin()
    log_event(events.JobMoved(7, "ct_chest", "1.2.3", "RUNNING", "FAILED", "gave up"))
    told = log.last
    assert told["message"] == "job moved"
    assert {k: told[k] for k in ("job_id", "model", "study_uid", "before", "after", "why")} == {
        "job_id": 7,
        "model": "ct_chest",
        "study_uid": "1.2.3",
        "before": "RUNNING",
        "after": "FAILED",
        "why": "gave up",
    }


def test_numbers_that_json_cannot_hold(begin: Callable[..., Log]) -> None:
    log = begin()
    log_event(events.StageTimed("ct_chest", "infer", float("nan")))
    assert log.last["seconds"] == "nan"


def test_text_for_people(begin: Callable[..., Log]) -> None:
    log = begin("text", "INFO")
    log_event(events.JobMoved(7, "ct_chest", "1.2.3", "RUNNING", "FAILED", "gave up"))
    assert log.lines[-1].endswith(
        "WARNING watch overread.event: job moved job_id=7 model=ct_chest study_uid=1.2.3 before=RUNNING after=FAILED "
        'why="gave up"'
    )


def test_a_wrong_format_string_costs_nothing(begin: Callable[..., Log]) -> None:
    log = begin()
    logging.getLogger("overread.route").info("%d studies", "three")
    assert log.last["message"] == "%d studies"


def test_undo_puts_everything_back() -> None:
    root = logging.getLogger()
    before = (root.level, root.handlers[:], sys.excepthook, threading.excepthook, warnings.showwarning)
    undo = install("json", "DEBUG", "listen", io.StringIO())
    undo()
    assert before == (root.level, root.handlers[:], sys.excepthook, threading.excepthook, warnings.showwarning)


def test_an_unknown_style_or_level_is_refused() -> None:
    with pytest.raises(ValueError, match="json or text"):
        install("xml", "INFO", "listen", io.StringIO())
    root = logging.getLogger()
    before = root.handlers[:]
    with pytest.raises(ValueError, match="LOUD"):
        install("json", "LOUD", "listen", io.StringIO())
    assert root.handlers == before
