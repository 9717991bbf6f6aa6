"""What the deployment tests share: programs from outside Python, the repository, and a hospital day in events."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from overread.domain import events

ROOT = Path(__file__).resolve().parents[2]
Program = Callable[[str], str]


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed; CI must have it")
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def program() -> Program:
    """The path of a program; skips without it, fails when CI=true."""
    return _program


@pytest.fixture
def deploy() -> Path:
    return ROOT / "deploy"


@pytest.fixture
def day() -> list[events.Event]:
    """Each kind of event at least once, with every value of the closed label sets that matter."""
    uid, model = "1.2.3", "ct_chest"
    return [
        events.AssociationOpened("CT1", "127.0.0.1"),
        events.InstanceReceived("CT1", uid, "1.2", 524288, 0.004),
        events.InstanceReceived("CT1", uid, "1.2", 524288, 0.004),
        events.InstancesIndexed(1, 1, 1),
        *(events.SpoolDiscrepancy(kind, 1) for kind in ("unindexed", "missing", "unreadable", "half-written")),
        events.InstanceRefused("CT1", 0xC000, "truncated"),
        events.CommitmentRequested("CT1", 0x0000, 2),
        events.CommitmentJudged("CT1", 1, 1),
        *(events.CommitmentReported("CT1", outcome) for outcome in ("same-association", "nowhere")),
        events.RequestAnswered("CT1", "127.0.0.1", 202, 1, 1, 0.1, "the part is empty"),
        events.AssociationClosed("CT1"),
        events.AssociationRefused("WHO", "127.0.0.1", "calling-ae"),
        *(events.ConnectionDropped("127.0.0.1", why) for why in ("silent", "handshake-refused")),
        *(events.CertificateRead(kind, 2e9) for kind in ("certificate", "client_ca", "crl")),
        events.CertificatesNotTaken("receive.tls.key: it is encrypted"),
        events.StudyCompleted(uid, 2, 0),
        events.StudyRouted(uid, 1, 1),
        *(events.JobMoved(1, model, uid, "", after, "") for after in ("SCHEDULED", "RUNNING", "DELIVERING", "FAILED")),
        events.ModelLoaded(model, "cpu", 4.0),
        *(events.StageTimed(model, stage, 3.0) for stage in ("load", "infer", "measure", "encode")),
        events.WorkerDied(model, "memory"),
        events.ModelUnloaded(model),
        events.WorkerUnconfined(model, "a network namespace of its own (Operation not permitted)", True),
        events.WorkerUnconfined(model, "its own files only (Function not implemented)"),
        *(events.MemoryShort(model, remedy) for remedy in ("smaller", "cpu", "patience")),
        events.ReadingRested(model, 12.0),
        *(events.JobClaimed(model, urgency, 30.0, urgency == "ROUTINE") for urgency in ("STAT", "ROUTINE")),
        events.DeadlineMissed(model),
        *(events.DeliveryTried("pacs", "seg", outcome, 0.3) for outcome in ("unreachable", "sent", "verified")),
        events.JobMoved(1, model, uid, "DELIVERING", "COMPLETED", ""),
        events.JobMoved(2, model, uid, "RUNNING", "NOT_APPLICABLE", ""),
        events.ResultArrived(model, 240.0),
        events.Trouble("deliver", "OSError"),
    ]
