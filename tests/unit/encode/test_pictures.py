"""Secondary captures, the summary and key objects: for whoever shows neither segmentations nor reports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.domain.findings import Findings
from overread.domain.result import Result
from overread.encode import capture, encoders
from overread.encode.display import Drawn
from overread.encode.keyslices import key_slices
from overread.encode.outline import contours
from overread.ports import Read

from .conftest import SHAPE, complaints, mask

Reading = Callable[..., Read]
NOTHING = Findings(np.zeros(SHAPE, np.uint8), ())


def encode(read: Read, out: Path, kind: str) -> list[Result]:
    (encoder,) = encoders([kind])
    return list(encoder.encode(read, out, []))


@pytest.mark.parametrize("kind", ["sc", "pdf", "ko"])
def test_each_is_valid_and_the_same_each_time(reading: Reading, out: Path, kind: str) -> None:
    read = reading()
    results = encode(read, out, kind)
    assert len({r.series_uid for r in results}) == 1
    for result in results:
        assert complaints(out / result.path) == []
        assert hashlib.sha256((out / result.path).read_bytes()).hexdigest() == result.digest
    assert [r.digest for r in encode(read, out, kind)] == [r.digest for r in results]


def test_pictures_say_what_they_are_and_what_they_show(reading: Reading, out: Path) -> None:
    read = reading()
    summary, *slices = [dcmread(out / r.path) for r in encode(read, out, "sc")]
    shown = [read.volume.stack.instances[k].sop_instance_uid for k in key_slices(read)]
    assert [ds.SourceImageSequence[0].ReferencedSOPInstanceUID for ds in slices] == shown
    assert {i.ReferencedSOPInstanceUID for i in summary.SourceImageSequence} == set(shown)
    for number, ds in enumerate([summary, *slices], 1):
        assert (ds.ConversionType, ds.BurnedInAnnotation, ds.InstanceNumber) == ("WSD", "NO", number)
        assert "not a diagnosis" in ds.DerivationDescription
        assert ds.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert slices[0].PatientOrientation == ["L", "P"]


def test_what_could_be_read_in_the_source_can_be_read_in_its_picture(reading: Reading, out: Path) -> None:
    def written_on(_: int, ds: Dataset) -> None:
        ds.BurnedInAnnotation = "YES"

    assert {dcmread(out / r.path).BurnedInAnnotation for r in encode(reading(written_on), out, "sc")} == {"YES"}


def test_outlines_have_the_colours_of_their_labels_and_lie_where_their_segments_are(reading: Reading) -> None:
    read = reading()
    drawn = capture.draw(read, capture.read_sources(read.volume), 2)
    picture = np.asarray(drawn.picture)
    for segment in read.findings.segments[:3]:
        rows, columns = np.nonzero((picture == segment.label.color).all(axis=2))
        held = np.argwhere(mask()[2] == segment.value)
        low, high = held.min(axis=0), held.max(axis=0) + 1
        found = np.array([[rows.min() / drawn.scale[1], columns.min() / drawn.scale[0]]])
        far = np.array([[(rows.max() + 1) / drawn.scale[1], (columns.max() + 1) / drawn.scale[0]]])
        assert np.abs(found - low).max() < 0.2
        assert np.abs(far - high).max() < 0.2


@pytest.mark.parametrize("turn", [0, 1], ids=["upside down", "mirrored"])
def test_a_picture_that_is_turned_does_not_pass_the_gate(
    reading: Reading, out: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    from PIL import Image

    draw = capture.draw

    def turned(*given: object) -> Drawn:
        drawn = draw(*given)  # type: ignore[arg-type]
        return replace(drawn, picture=Image.fromarray(np.flip(np.asarray(drawn.picture), turn).copy()))

    monkeypatch.setattr(capture, "draw", turned)
    with pytest.raises(Misplaced, match="is not drawn where the segment is"):
        encode(reading(), out, "sc")


def test_the_cards_window_decides_what_is_black_and_white(reading: Reading) -> None:
    read = reading()
    sources = capture.read_sources(read.volume)
    low = np.asarray(capture.draw(replace(read, card=replace(read.card, window=(3000.0, 10.0))), sources, 0).picture)
    high = np.asarray(capture.draw(replace(read, card=replace(read.card, window=(-3000.0, 10.0))), sources, 0).picture)
    assert (low.min(), high.max()) == (0, 255)
    assert low.mean() < high.mean()


def test_nothing_found_still_has_a_summary_and_a_picture_but_no_key_objects(reading: Reading, out: Path) -> None:
    read = replace(reading(), findings=NOTHING)
    assert len(encode(read, out, "sc")) == 2
    assert encode(read, out, "ko") == []


def test_key_objects_are_the_slices_that_matter_what_is_abnormal_first(reading: Reading, out: Path) -> None:
    read = reading()
    (result,) = encode(read, out, "ko")
    selection = dcmread(out / result.path)
    named = [
        c.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for c in selection.ContentSequence
        if "ReferencedSOPSequence" in c
    ]
    assert named == [read.volume.stack.instances[k].sop_instance_uid for k in key_slices(read)]
    assert key_slices(read)[0] in (2, 5)  # the nodules'
    assert selection.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"


def test_the_document_is_a_pdf_of_one_page(reading: Reading, out: Path) -> None:
    (result,) = encode(reading(), out, "pdf")
    ds = dcmread(out / result.path)
    data = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") + data.count(b"/Type/Page ") >= 1
    assert ds.DocumentTitle == "Overread CT chest: AI result, not a diagnosis"


def test_contours_are_every_boundary_of_parts_and_holes() -> None:
    plane = np.zeros((9, 9), bool)
    plane[1:6, 1:6] = True
    plane[3, 3] = False
    plane[7, 8] = True
    found = contours(plane)
    assert sorted(len(line) for line in found) == [5, 5, 5]
    assert sorted(float(np.ptp(line[:, 0])) for line in found) == [1.0, 1.0, 5.0]
    assert contours(np.zeros((3, 3), bool)) == []
