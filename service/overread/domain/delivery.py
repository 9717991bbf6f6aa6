"""One result on its way to one destination, and what the destination said of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from overread.domain.result import Result


@dataclass(frozen=True)
class Item:
    """A result as it is handed to a destination: its file, the job that made it, and who sent the study.

    ``transaction_uid`` is that of a storage commitment that was asked for and not answered in time; ``coerced`` says
    that the destination announced, when it took the object, that it changes attributes (0xB000).
    """

    result: Result
    path: Path
    job_id: int = 0
    calling_ae: str = ""
    transaction_uid: str = ""
    coerced: bool = False


class Outcome(StrEnum):
    """What became of an object that was sent, and with it what to do next."""

    TAKEN = "taken"
    WARNED = "warned"  # stored, with a warning that people should know of
    DUPLICATE = "duplicate"  # it says that it has the object: not stored again, to be verified
    BUSY = "busy"  # try again with patience
    REFUSED = "refused"  # never again: the object is at fault
    MISCONFIGURED = "misconfigured"  # never again before a person has changed a configuration
    PASSED_OVER = "passed-over"  # another variant of the same goes there instead


@dataclass(frozen=True)
class Told:
    """The outcome for one object, with the reason and the remedy in words."""

    outcome: Outcome
    reason: str = ""


class Standing(StrEnum):
    """What a destination says when it is asked for an object."""

    THERE = "there"
    MISSING = "missing"
    ALTERED = "altered"  # it is there with other content
    AWAITED = "awaited"  # asked; the answer comes later
    UNASKED = "unasked"  # its word is taken (proof = "none")


@dataclass(frozen=True)
class Proven:
    """The standing of one object; ``transaction_uid`` of the storage commitment that is awaited for ``wait_s``."""

    standing: Standing
    reason: str = ""
    transaction_uid: str = ""
    wait_s: float = 0.0
