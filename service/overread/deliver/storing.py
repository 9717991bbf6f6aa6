"""C-STORE as a requestor (PS3.7 Section 9.3.1): one object over an open line, its bytes as they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from overread.deliver.association import Line, Message
from overread.domain.command_set import C_STORE_RQ, CLASS, COMMENT, FIELD, INSTANCE, MESSAGE_ID, PRIORITY, Value

SLOWEST_BYTES_PER_S = 250_000.0
MEDIUM = 0x0000


@dataclass(frozen=True)
class Part:
    """What is stored: its SOP Class and Instance, and the presentation context that it goes in."""

    sop_class_uid: str
    sop_instance_uid: str
    context_id: int


def patience_s(timeout_s: float, size: int) -> float:
    """How long one object may take: longer for a large one by the time that 250 kB/s take."""
    return timeout_s + size / SLOWEST_BYTES_PER_S


def store(line: Line, part: Part, source: BinaryIO, size: int) -> Message:
    """Send the next ``size`` bytes of ``source`` as one object; the peer's answer.

    Raises Unreachable when none comes, or none that has a status: the object may have been stored or not.
    """
    command: dict[int, Value] = {
        CLASS: part.sop_class_uid,
        FIELD: C_STORE_RQ,
        MESSAGE_ID: line.next_id(),
        PRIORITY: MEDIUM,
        INSTANCE: part.sop_instance_uid,
    }
    wait_s = patience_s(line.call.timeout_s, size)
    line.pour(part.context_id, command, source, size, wait_s)
    return line.expect_status(wait_s)


def comment_of(answer: Message) -> str:
    """The Error Comment of an answer, or nothing."""
    return str(answer.command.get(COMMENT, ""))
