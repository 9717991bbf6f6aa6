"""What happened, told by the rooms and turned into metrics, logs and audit rows by ``observe``.

Events carry UIDs, never names, dates or identifiers of patients.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class AssociationOpened(Event):
    calling_ae: str
    address: str


@dataclass(frozen=True)
class AssociationClosed(Event):
    calling_ae: str


@dataclass(frozen=True)
class AssociationRefused(Event):
    """``reason`` is one of a small fixed set: calling-ae, called-ae, address, certificate, limit, peer-limit, rate,
    quota, storage-full; ``result`` is A-ASSOCIATE-RJ's result, source and reason, such as 1/1/3 (PS3.8 Table 9-21)."""

    calling_ae: str
    address: str
    reason: str
    result: str = ""
    called_ae: str = ""


@dataclass(frozen=True)
class ConnectionDropped(Event):
    """A connection ended before it asked for an association, or an association before its end. ``reason`` is silent
    (nothing came in time), crowded (others needed its place), malformed, too-long, handshake-silent, handshake-refused,
    or idle (an association that made way); ``detail`` is OpenSSL's word for a handshake that failed."""

    address: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class CertificateRead(Event):
    """TLS uses a file, until ``expires_at`` (seconds since the epoch). ``kind`` is certificate, client_ca or crl."""

    kind: str
    expires_at: float


@dataclass(frozen=True)
class CertificatesNotTaken(Event):
    """The files of TLS have changed and cannot be used; those from before still are."""

    why: str


@dataclass(frozen=True)
class InstanceReceived(Event):
    calling_ae: str
    study_uid: str
    sop_class_uid: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True)
class InstanceRefused(Event):
    """``status`` is the C-STORE status that was answered (PS3.4 Table B.2-1)."""

    calling_ae: str
    status: int
    reason: str


@dataclass(frozen=True)
class RequestAnswered(Event):
    """A request of STOW-RS: the HTTP ``status`` that was answered, and how many instances are stored and are not."""

    calling_ae: str
    address: str
    status: int
    stored: int
    failed: int
    seconds: float
    reason: str


@dataclass(frozen=True)
class InstancesIndexed(Event):
    """A batch is in the ledger: so many new instances, so many that were there already, and so many that came with
    other content than before."""

    instances: int
    duplicates: int
    conflicts: int


@dataclass(frozen=True)
class SpoolDiscrepancy(Event):
    """What a comparison of spool and ledger found, told for each kind also when it is none.

    ``kind`` is unindexed (files without a row, which got one), missing (rows without their file), unreadable or
    half-written.
    """

    kind: str
    count: int


@dataclass(frozen=True)
class CommitmentRequested(Event):
    """Storage commitment of so many instances was asked for; ``status`` is the N-ACTION status that was answered."""

    calling_ae: str
    status: int
    instances: int


@dataclass(frozen=True)
class CommitmentJudged(Event):
    calling_ae: str
    committed: int
    failed: int


@dataclass(frozen=True)
class CommitmentReported(Event):
    """``outcome`` is same-association or new-association when the sender has taken the report; unanswered, unreachable
    or refused when it will be tried again or not; gave-up; nowhere, when nobody says where to report."""

    calling_ae: str
    outcome: str


@dataclass(frozen=True)
class StudyCompleted(Event):
    study_uid: str
    instances: int
    revision: int


@dataclass(frozen=True)
class StudyRouted(Event):
    study_uid: str
    jobs: int
    declined: int


@dataclass(frozen=True)
class JobMoved(Event):
    job_id: int
    model: str
    study_uid: str
    before: str
    after: str
    why: str


@dataclass(frozen=True)
class ModelLoaded(Event):
    model: str
    device: str
    seconds: float


@dataclass(frozen=True)
class ModelUnloaded(Event):
    """The model made room for another."""

    model: str


@dataclass(frozen=True)
class ModelReplaced(Event):
    """The model's process was ended after an error that the model has thrown, and a fresh one will take its place."""

    model: str


@dataclass(frozen=True)
class WorkerDied(Event):
    """``reason`` is crash, timeout, memory or device; ``signal`` the name of the signal that ended it, or empty."""

    model: str
    reason: str
    signal: str = ""
    peak_bytes: int = 0


@dataclass(frozen=True)
class WorkerUnconfined(Event):
    """What this system does not let overread take from the processes of a model, in words; ``network`` when one could
    reach the network."""

    model: str
    lacking: str
    network: bool = False


@dataclass(frozen=True)
class MemoryShort(Event):
    """A reading ran out of memory; ``remedy`` is what is tried next: evict, smaller, cpu or patience."""

    model: str
    remedy: str


@dataclass(frozen=True)
class ReadingRested(Event):
    """A reading rested for so long, so that urgent ones had its device."""

    model: str
    seconds: float


@dataclass(frozen=True)
class JobClaimed(Event):
    """A job began ``waited_s`` after it was planned; ``overdue``: it went before others for having waited too long."""

    model: str
    urgency: str
    waited_s: float
    overdue: bool = False


@dataclass(frozen=True)
class DeadlineMissed(Event):
    """A result is not at home at the time at which the card or the AE title wants it."""

    model: str


@dataclass(frozen=True)
class StageTimed(Event):
    """Seconds a job spent in one stage: load, infer, measure, encode."""

    model: str
    stage: str
    seconds: float


@dataclass(frozen=True)
class DeliveryTried(Event):
    """One try for one result. ``outcome`` is verified, accepted, sent, warned, duplicate, unreachable, busy, rejected,
    misconfigured or unproven; the proof of what was sent before counts as a try of its own."""

    destination: str
    kind: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class DestinationTurned(Event):
    """A destination's circuit breaker has opened (nothing but probes is sent), or closed again; ``reason`` in words."""

    destination: str
    open: bool
    reason: str


@dataclass(frozen=True)
class DeliveriesLost(Event):
    """So many results that a destination had proven are not there any more; they are sent again."""

    destination: str
    count: int


@dataclass(frozen=True)
class ResultArrived(Event):
    """All results of a job are proven at all destinations, ``seconds`` after the study's last image came."""

    model: str
    seconds: float


@dataclass(frozen=True)
class CanaryEnded(Event):
    """A canary is proven at its destinations, ``seconds`` after it was sent, or it is not, with the ``reason``."""

    arrived: bool
    seconds: float
    reason: str


@dataclass(frozen=True)
class Trouble(Event):
    """Something failed at an edge and was contained there; ``where`` is a room, ``error`` the exception's class."""

    where: str
    error: str
