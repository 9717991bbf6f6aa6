"""A ledger with a study that has met the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from overread.domain.card import Accepts, Card, Label, Runtime
from overread.domain.codes import Code
from overread.domain.study import Instance
from overread.ledger import Ledger, arrivals, jobs, open_ledger
from overread.ledger.arrivals import Arrival
from overread.ledger.jobs import Plan

STUDY = "1.2"


def card(name: str = "lungs", **runtime: float) -> Card:
    label = Label(1, "Lung", Code("39607008", "SCT", "Lung"))
    run = Runtime(**{"attempts": 3, **runtime})  # type: ignore[arg-type]
    return Card(name, "1", name, "overread", "monai-bundle", "m", "0", Accepts("CT"), (label,), Path(name), run)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    books = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield books
    books.close()


@pytest.fixture
def planned(ledger: Ledger, ct_headers: Callable[..., list[Instance]]) -> Callable[..., None]:
    """``planned("input", "lungs", …)``: the study grows and gets one job for each model."""
    size = [0]

    def plan(digest: str, *models: str, version: str = "1") -> None:
        size[0] += 1
        came = [replace(i, study_uid=STUDY, path=i.sop_instance_uid) for i in ct_headers(size[0])]
        arrivals.record(ledger, [Arrival(i, 1, float(size[0])) for i in came])
        (waiting,) = arrivals.waiting(ledger)
        revision = arrivals.complete(ledger, waiting, 5.0)
        assert revision is not None
        wanted = [Plan(m, version, "1.2.3", digest, 0) for m in models or ("lungs",)]
        assert jobs.plan(ledger, STUDY, revision, [], wanted) is not None

    return plan
