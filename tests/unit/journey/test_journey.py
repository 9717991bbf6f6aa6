"""One job, from its images to results in the spool: what the gate refuses is kept there, and told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from overread.domain.card import CT_IMAGE_STORAGE, Accepts, Card, Label, Limits
from overread.domain.codes import Code
from overread.domain.errors import Misplaced, Unfit
from overread.domain.geometry import stack
from overread.domain.job import Job, JobState
from overread.domain.pace import Pace
from overread.domain.provenance import Provenance, Style
from overread.domain.reading import Reading
from overread.encode import encoders
from overread.encode.multiframe import Multiframe
from overread.journey import Encoding, Journey
from overread.ledger import arrivals, open_ledger
from overread.ledger.arrivals import Arrival
from overread.simulate.phantom import Grid, chest_phantom
from overread.simulate.study import write_study
from overread.spool import Spool
from overread.spool.header import read_file

LUNG = Label(1, "Air", Code("39607008", "SCT", "Lung"))
CARD = Card("air", "1", "Air", "overread", "monai", "", "ab" * 32, Accepts("CT"), (LUNG,), Path(), digest="cd" * 32)


class Air:
    """Reads everything that is thin as air."""

    def read(self, card: Card, volumes: object, progress: Callable[[float], None], pace: Pace) -> Reading:
        (volume,) = volumes  # type: ignore[misc]
        found = (volume.voxels < -500).astype(np.uint8)
        return Reading(label_map=found, probabilities={1: found * np.float16(0.75)})


@dataclass(frozen=True)
class Case:
    journey: Callable[..., Journey]
    job: Job
    spool: Spool


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write_study(chest_phantom(1, Grid((8, 24, 24), (20.0, 14.0, 14.0))), tmp_path / "study", seed=1)
    ledger, spool = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), Spool(tmp_path / "spool", durable=False)
    instances = []
    for path in sorted((tmp_path / "study").rglob("*.dcm")):
        instance = read_file(path)
        stored = spool.adopt(path, instance)
        instances.append(instance.stored(stored.path, stored.digest, "TEST"))
    images = [i for i in instances if i.sop_class_uid == CT_IMAGE_STORAGE]
    arrivals.record(ledger, [Arrival(i, 1, 5.0) for i in images])
    digest, first = stack(images).digest(), images[0]
    job = Job(7, first.study_uid, first.series_uid, "air", "1", digest, 1, JobState.RUNNING, 0, 0, 1764000000.0)

    def make(*variants: str, style: Style | None = None, tells_unfit: bool = False) -> Journey:
        encoding = Encoding(encoders(["seg", "sr"]), variants or ("binary",), style or Style())
        return Journey(ledger, spool, Air(), encoding, lambda _: None, tells_unfit=tells_unfit)

    return Case(make, job, spool)


def test_results_lie_in_the_spool_with_their_provenance(case: Case) -> None:
    results = case.journey("binary", "labelmap", "fractional")(case.job, CARD, lambda _: None)
    assert [(r.kind, r.variant) for r in results] == [
        *(("seg", "binary"), ("seg", "labelmap"), ("seg", "fractional")),
        *(("sr", "binary"), ("sr", "labelmap"), ("sr", "fractional")),
    ]
    for result in results:
        assert dcmread(case.spool.absolute(result.path)).SOPInstanceUID == result.sop_instance_uid
        origin = Provenance.of(result.provenance)
        assert (origin.weights, origin.card, origin.input) == ("ab" * 32, "cd" * 32, case.job.input_digest)


def test_the_same_job_makes_the_same_bytes_and_other_settings_other_objects(case: Case) -> None:
    first, again = (case.journey()(case.job, CARD, lambda _: None) for _ in range(2))
    assert [r.digest for r in first] == [r.digest for r in again]
    other = case.journey(style=Style(series_description="AI {kind}"))(case.job, CARD, lambda _: None)
    assert not {r.sop_instance_uid for r in first} & {r.sop_instance_uid for r in other}


def test_what_the_gate_refuses_is_kept_and_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Multiframe.write

    def mirrored(made: Multiframe, path: Path) -> str:
        digest = write(made, path)
        seg = dcmread(path)
        bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
        frames = bits.reshape(-1, seg.Rows, seg.Columns)[:, :, ::-1]
        seg.PixelData = np.packbits(frames, bitorder="little").tobytes()
        seg.save_as(path)
        return digest

    monkeypatch.setattr(Multiframe, "write", mirrored)
    with pytest.raises(Misplaced, match=r"differ from the findings.*kept as results/7/seg\.refused") as refusal:
        case.journey()(case.job, CARD, lambda _: None)
    kept = re.search(r"kept as (\S+)", str(refusal.value))
    assert kept is not None
    assert dcmread(case.spool.absolute(kept[1])).Modality == "SEG"
    assert [path.name for path in case.spool.absolute("results/7").iterdir()] == ["seg.refused"]


@pytest.mark.parametrize("asked", [True, False])
def test_what_could_not_be_read_is_told_with_its_provenance_where_that_is_asked_for(case: Case, asked: bool) -> None:
    narrow = replace(CARD, quality=Limits(max_noise=1e-6))
    with pytest.raises(Unfit) as refusal:
        case.journey(tells_unfit=asked)(case.job, narrow, lambda _: None)
    assert [result.kind for result in refusal.value.results] == ["unfit"] * asked
    for result in refusal.value.results:
        origin = Provenance.of(result.provenance)
        assert (origin.card, origin.input) == ("cd" * 32, case.job.input_digest)
        report = dcmread(case.spool.absolute(result.path))
        assert str(refusal.value) in report.ContentSequence[-1].ContentSequence[-1].TextValue
