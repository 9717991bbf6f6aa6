"""How an AE proves that it kept what it took: by its word, by C-FIND, by giving it back, by storage commitment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from overread.deliver.association import IMPLICIT, Line
from overread.deliver.content import as_dataset, encoded
from overread.deliver.lines import Lines
from overread.domain.command_set import C_FIND_RQ, CLASS, FIELD, MESSAGE_ID, PRIORITY, Value
from overread.domain.delivery import Item, Proven, Standing
from overread.domain.errors import Rejected, Unreachable
from overread.domain.result import Result

FIND_SOP_CLASS = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve Information Model - FIND
_PENDING = (0xFF00, 0xFF01)
_ENDLESS = 10


@dataclass(frozen=True)
class Asker:
    """Who asks, and over which associations."""

    name: str
    own_ae_title: str
    lines: Lines


Witness = Callable[[Asker, Sequence[Item]], Iterator[tuple[Item, Proven]]]


def unasked(_: Asker, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
    """Its word is taken."""
    yield from ((item, Proven(Standing.UNASKED)) for item in items)


def by_find(asker: Asker, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
    """Asked by C-FIND at IMAGE level (PS3.4 C.4.1): for one object by its UID, for several of a series by the series.

    Raises Unreachable, or Rejected when it cannot be asked.
    """
    with asked_over(asker, FIND_SOP_CLASS, "c-find") as line:
        for series in _by_series(items):
            question = question_for(series[0].result)
            if len(series) > 1:
                question.SOPInstanceUID = ""
            found = _found(asker, line, question)
            for item in series:
                there = item.result.sop_instance_uid in found
                missing = "" if there else "it was taken but is not found there"
                yield item, Proven(Standing.THERE if there else Standing.MISSING, missing)


class asked_over:
    """A line with a context of one SOP Class in Implicit VR Little Endian; Rejected says that it cannot be asked so."""

    def __init__(self, asker: Asker, sop_class_uid: str, proof: str) -> None:
        self._asker, self._proof = asker, proof
        self._lent = asker.lines.line(asker.own_ae_title, [(sop_class_uid, IMPLICIT)])

    def __enter__(self) -> Line:
        try:
            return self._lent.__enter__()
        except Rejected as error:
            raise cannot_be_asked(self._asker, self._proof, error) from None

    def __exit__(self, *said: object) -> None:
        self._lent.__exit__(*said)  # type: ignore[arg-type]


def cannot_be_asked(asker: Asker, proof: str, why: object) -> Rejected:
    """The configuration fault of a destination that does not know the service by which it should prove."""
    return Rejected(
        f"configuration fault: destination {asker.name!r} cannot be asked by {proof} ({why}); "
        'have it enabled there, or choose another proof (proof = "none" takes its word)'
    )


def question_for(result: Result) -> Dataset:
    """The identifier of one instance at IMAGE level."""
    question = Dataset()
    question.QueryRetrieveLevel = "IMAGE"
    question.StudyInstanceUID = result.study_uid
    question.SeriesInstanceUID = result.series_uid
    question.SOPInstanceUID = result.sop_instance_uid
    return question


def _by_series(items: Sequence[Item]) -> list[list[Item]]:
    series: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        series.setdefault((item.result.study_uid, item.result.series_uid), []).append(item)
    return list(series.values())


def _found(asker: Asker, line: Line, question: Dataset) -> set[str]:
    command: dict[int, Value] = {CLASS: FIND_SOP_CLASS, FIELD: C_FIND_RQ, MESSAGE_ID: line.next_id(), PRIORITY: 0}
    deadline = time.monotonic() + _ENDLESS * line.call.timeout_s
    answer = line.ask(line.accepted[FIND_SOP_CLASS, IMPLICIT], command, encoded(question, implicit=True))
    found: set[str] = set()
    while answer.status in _PENDING:
        try:
            found.add(str(as_dataset(answer.data or b"", IMPLICIT).get("SOPInstanceUID", "")))
        except ValueError as error:
            raise Unreachable(f"destination {asker.name!r} answers C-FIND with nonsense: {error}") from None
        if time.monotonic() > deadline:
            line.abort()
            raise Unreachable(f"destination {asker.name!r} does not come to an end answering C-FIND")
        answer = line.expect_status(line.call.timeout_s)
    judge(asker, answer.status or 0, "C-FIND")
    return found


def judge(asker: Asker, status: int, service: str) -> None:
    """Nothing for success; Rejected when it will always answer so, else Unreachable."""
    if status == 0x0000:
        return
    if status in (0x0122, 0x0124, 0xA801) or status >> 8 == 0xA9:
        raise cannot_be_asked(asker, service, f"it answered 0x{status:04X}")
    raise Unreachable(f"destination {asker.name!r}: it answered 0x{status:04X} to {service}")
