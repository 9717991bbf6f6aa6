"""The tables. Times are seconds since the epoch, UTC. Paths are relative to the spool."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, String, UniqueConstraint
from sqlmodel import Field, SQLModel

# Ordered by code points, as Python orders what lies in the spool, whatever the database's own language is.
PATH = String().with_variant(String(collation="C"), "postgresql")


class StudyRow(SQLModel, table=True):
    """A study. ``state`` RECEIVING or COMPLETE; ``routed_revision`` the last revision that met the models.

    ``duplicates`` counts what was acknowledged again without a change, ``conflicts`` what came with other content.
    ``called_aes`` are our AE titles to which any of it was sent, joined by backslashes.
    Retention leaves it alone until ``committed_until``, which storage commitment has promised.
    """

    __tablename__ = "study"

    uid: str = Field(primary_key=True, max_length=64)
    state: str = Field(default="RECEIVING", index=True)
    revision: int = 1
    instances: int = 0
    conflicts: int = 0
    duplicates: int = 0
    modalities: str = ""
    called_aes: str = ""
    first_at: float = 0.0
    last_at: float = 0.0
    completed_at: float | None = None
    routed_revision: int = 0
    purged_at: float | None = None
    committed_until: float = 0.0


class InstanceRow(SQLModel, table=True):
    """One stored instance: the newest content that came under its UID. ``header`` is a domain ``Instance``.

    A UID belongs to its study: who reuses it in another study must not take the instance away from the first.
    """

    __tablename__ = "instance"

    study_uid: str = Field(primary_key=True, max_length=64)
    sop_instance_uid: str = Field(primary_key=True, index=True, max_length=64)
    series_uid: str = Field(max_length=64)
    digest: str = Field(max_length=64)
    path: str = Field(sa_column=Column(PATH, nullable=False, index=True))
    size_bytes: int = Field(default=0, sa_type=BigInteger)
    received_at: float = 0.0
    header: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class ConflictRow(SQLModel, table=True):
    """Other content came under a known UID, at ``at`` from ``calling_ae``.

    ``path`` and ``digest`` are of the content that was set aside, ``new_path`` and ``new_digest`` of the one that was
    current from then on.
    """

    __tablename__ = "conflict"
    __table_args__ = (Index("conflict_instance", "study_uid", "sop_instance_uid"),)

    id: int | None = Field(default=None, primary_key=True)
    study_uid: str = Field(max_length=64)
    sop_instance_uid: str = Field(max_length=64)
    at: float
    calling_ae: str = ""
    path: str = Field(sa_column=Column(PATH, nullable=False, index=True))
    digest: str = Field(max_length=64)
    new_path: str
    new_digest: str = Field(max_length=64)


class DecisionRow(SQLModel, table=True):
    """Why a model was given, or not given, a series of one revision of a study. ``series_uid`` empty: the study."""

    __tablename__ = "decision"

    id: int | None = Field(default=None, primary_key=True)
    study_uid: str = Field(index=True, max_length=64)
    revision: int
    model: str
    series_uid: str = ""
    series_title: str = ""
    chosen: bool = False
    reason: str = ""


class JobRow(SQLModel, table=True):
    """One model on one input; ``last_at`` is when the last image of its input came.

    ``called_aes`` are those of the study when ``urgency``, ``hint`` and with them ``priority`` were derived from them.
    ``deadline`` is when its result is wanted, 0: not said; ``late`` once it was told that it is not there. ``kills``
    counts the processes of its model that it took down since it was planned or sent back by a person.
    """

    __tablename__ = "job"
    __table_args__ = (
        # The revision is part of it: when earlier content comes back, its input is read again as a new job.
        UniqueConstraint("study_uid", "model", "model_version", "input_digest", "revision", name="job_of_revision"),
        Index("job_queue", "state", "priority", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    study_uid: str = Field(index=True, max_length=64)
    series_uid: str = Field(max_length=64)
    model: str
    model_version: str
    input_digest: str = Field(max_length=64)
    revision: int
    state: str = "SCHEDULED"
    attempts: int = 0
    priority: int = 0
    called_aes: str = ""
    urgency: str = "ROUTINE"
    hint: str = ""
    not_before: float = 0.0
    lease_until: float = 0.0
    worker: str = ""
    progress: float = 0.0
    reason: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    last_at: float = 0.0
    deadline: float = 0.0
    late: bool = False
    kills: int = 0


class DeathRow(SQLModel, table=True):
    """A process of a model that died of a job, as in ``domain.death``."""

    __tablename__ = "death"

    id: int | None = Field(default=None, primary_key=True)
    job_id: int = Field(index=True)
    at: float
    attempt: int
    kind: str
    signal: str = ""
    exit_code: int | None = None
    peak_bytes: int = Field(default=0, sa_type=BigInteger)
    said: str = ""


class EventRow(SQLModel, table=True):
    """One move of a job: who, when, why."""

    __tablename__ = "job_event"

    id: int | None = Field(default=None, primary_key=True)
    job_id: int = Field(index=True)
    at: float
    who: str
    event: str
    before: str
    after: str
    why: str = ""


class ResultRow(SQLModel, table=True):
    """One DICOM object made by a job; ``alternative``, ``variant`` and ``provenance`` as in ``domain.result``."""

    __tablename__ = "result"

    sop_instance_uid: str = Field(primary_key=True, max_length=64)
    job_id: int = Field(index=True)
    kind: str
    sop_class_uid: str
    series_uid: str
    study_uid: str = Field(index=True, max_length=64)
    transfer_syntax_uid: str
    path: str
    digest: str
    alternative: str = ""
    variant: str = ""
    provenance: str = ""
    made_at: float


class DeliveryRow(SQLModel, table=True):
    """One result on its way to one destination.

    Whoever sends or proves it holds a claim: ``worker`` until ``lease_until``. ``cause`` is one word for ``reason``
    (``domain.delivery`` and the outbox); ``warning`` what the destination said when it took it. ``exposed``: it may be
    there, for it was handed to somebody who might have sent it. ``asked`` counts questions since it was sent last.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "destination"),
        Index("delivery_queue", "destination", "state", "not_before"),
        Index("delivery_study", "destination", "study_uid"),
        Index("delivery_transaction", "transaction_uid"),
    )

    id: int | None = Field(default=None, primary_key=True)
    job_id: int = Field(index=True)
    study_uid: str = Field(default="", max_length=64)
    sop_instance_uid: str = Field(max_length=64)
    destination: str
    state: str = "PENDING"
    attempts: int = 0
    not_before: float = 0.0
    reason: str = ""
    created_at: float = 0.0
    sent_at: float | None = None
    verified_at: float | None = None
    worker: str = ""
    lease_until: float = 0.0
    cause: str = ""
    warning: str = ""
    exposed: bool = False
    asked: int = 0
    transaction_uid: str = Field(default="", max_length=64)


class DestinationRow(SQLModel, table=True):
    """How a destination stands: ``state`` is that of its circuit breaker, CLOSED or OPEN since ``since``.

    ``failures`` counts connections that failed one after the other; an open one is probed at ``probe_at``.
    """

    __tablename__ = "destination"

    name: str = Field(primary_key=True)
    state: str = "CLOSED"
    failures: int = 0
    since: float = 0.0
    probe_at: float = 0.0
    reason: str = ""
    swept_at: float = 0.0


class CommitmentRow(SQLModel, table=True):
    """One storage commitment transaction that was judged. ``state`` PENDING (the sender has not been told), REPORTED or
    GAVE_UP; ``digest`` is over the instances that it names."""

    __tablename__ = "commitment"
    __table_args__ = (UniqueConstraint("calling_ae", "transaction_uid", name="commitment_transaction"),)

    id: int | None = Field(default=None, primary_key=True)
    calling_ae: str
    transaction_uid: str = Field(max_length=64)
    digest: str = Field(max_length=64)
    asked_at: float
    judged_at: float
    instances: int
    failed: int
    state: str = Field(default="PENDING", index=True)
    reported_at: float | None = None
    reason: str = ""


class CommitmentStudyRow(SQLModel, table=True):
    """A study that a storage commitment transaction has instances of."""

    __tablename__ = "commitment_study"

    commitment_id: int = Field(primary_key=True)
    study_uid: str = Field(primary_key=True, index=True, max_length=64)
