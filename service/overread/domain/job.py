"""The life of a job, as a table. Words follow the Unified Procedure Step where they can (PS3.4 CC.1.1).

    SCHEDULED ─claim─▶ RUNNING ─read─▶ DELIVERING ─verified─▶ COMPLETED ─superseded─▶ SUPERSEDED
        ▲                │  │ │             │
        └─stumbled/lost──┘  │ └─unfit─▶ NOT_APPLICABLE       SCHEDULED | RUNNING ─cancel─▶ CANCELED
                            └─gave_up─▶ FAILED ◀─gave_up─────┘       FAILED | CANCELED ─requeue─▶ SCHEDULED

A later revision of the study supersedes a job in any state but CANCELED. A person who has its dead letters tried again
makes a FAILED job DELIVERING: FAILED ─resend─▶ DELIVERING. One that is DELIVERING can be canceled, too: what has not
left stays here. One that FAILED waits for a person: canceled, it is closed, and its study need not be kept for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    DELIVERING = "DELIVERING"
    COMPLETED = "COMPLETED"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    SUPERSEDED = "SUPERSEDED"


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"  # SCHEDULED -> RUNNING, by a worker that holds a lease
    READ = "read"  # RUNNING -> DELIVERING, results are durable in the spool
    VERIFIED = "verified"  # DELIVERING -> COMPLETED, every destination has proven it
    STUMBLED = "stumbled"  # RUNNING -> SCHEDULED, this attempt failed
    LOST = "lost"  # RUNNING -> SCHEDULED, the lease ran out or its holder died
    UNFIT = "unfit"  # RUNNING -> NOT_APPLICABLE, the input is not what the model was made for
    GAVE_UP = "gave_up"  # RUNNING | DELIVERING -> FAILED
    CANCEL = "cancel"  # SCHEDULED | RUNNING | DELIVERING | FAILED -> CANCELED, by a person
    REQUEUE = "requeue"  # FAILED | CANCELED -> SCHEDULED, by a person
    RESEND = "resend"  # FAILED -> DELIVERING, a person has its dead letters tried again
    SUPERSEDE = "supersede"  # any but CANCELED -> SUPERSEDED, newer input


_S, _E = JobState, JobEvent

TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (_S.SCHEDULED, _E.CLAIM): _S.RUNNING,
    (_S.RUNNING, _E.READ): _S.DELIVERING,
    (_S.DELIVERING, _E.VERIFIED): _S.COMPLETED,
    (_S.RUNNING, _E.STUMBLED): _S.SCHEDULED,
    (_S.RUNNING, _E.LOST): _S.SCHEDULED,
    (_S.RUNNING, _E.UNFIT): _S.NOT_APPLICABLE,
    (_S.RUNNING, _E.GAVE_UP): _S.FAILED,
    (_S.DELIVERING, _E.GAVE_UP): _S.FAILED,
    (_S.SCHEDULED, _E.CANCEL): _S.CANCELED,
    (_S.RUNNING, _E.CANCEL): _S.CANCELED,
    (_S.DELIVERING, _E.CANCEL): _S.CANCELED,
    (_S.FAILED, _E.CANCEL): _S.CANCELED,
    (_S.FAILED, _E.REQUEUE): _S.SCHEDULED,
    (_S.CANCELED, _E.REQUEUE): _S.SCHEDULED,
    (_S.FAILED, _E.RESEND): _S.DELIVERING,
    (_S.SCHEDULED, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.RUNNING, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.DELIVERING, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.COMPLETED, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.NOT_APPLICABLE, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.FAILED, _E.SUPERSEDE): _S.SUPERSEDED,
}

ENDED = frozenset({_S.COMPLETED, _S.NOT_APPLICABLE, _S.FAILED, _S.CANCELED, _S.SUPERSEDED})


@dataclass(frozen=True)
class Job:
    """One model on one input. ``input_digest`` names the input's bytes, so that the same work is never done twice;
    ``attempts`` counts those that failed; ``last_at`` is when the input's last image came (seconds since the epoch).
    ``urgency`` and ``hint`` are those of the AE titles that the study was sent to; ``priority`` orders the queue.
    ``deadline`` is when its result is wanted (0: not said); ``overdue``: it had waited too long when it was claimed.
    ``kills`` counts the processes that it took down."""

    id: int
    study_uid: str
    series_uid: str
    model: str
    model_version: str
    input_digest: str
    revision: int
    state: JobState
    attempts: int
    priority: int
    last_at: float = 0.0
    urgency: str = "ROUTINE"
    hint: str = ""
    created_at: float = 0.0
    deadline: float = 0.0
    overdue: bool = False
    kills: int = 0
