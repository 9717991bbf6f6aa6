"""Several inputs, films, single images, and series that are no matter for a model."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overread.domain.candidates import Headers as LedgerHeaders
from overread.domain.candidates import Words
from overread.domain.card import Accepts, Card, Input, Label, read_card
from overread.domain.codes import Code
from overread.domain.geometry import series_digest
from overread.domain.study import Instance, group
from overread.route.choice import choose, input_digest
from overread.route.router import route
from overread.spool.frames import SpoolFrames
from overread.spool.header import read_file

Headers = Callable[..., list[Instance]]
CT_CHEST = Path(__file__).resolve().parents[3] / "models" / "ct_chest"
MR_CLASS = "1.2.840.10008.5.1.4.1.1.4"


def card(*inputs: Input, **accepts: Any) -> Card:
    wanted = Accepts(**{"modality": "MR", "sop_classes": (MR_CLASS,), "plane": "any", **accepts})
    label = Label(1, "Tumour", Code("108369006", "SCT", "Neoplasm"))
    return Card("brats", "1", "b", "o", "monai-bundle", "m", "00", wanted, (label,), Path("b"), inputs=inputs)


BRATS = (
    Input("T1c", description="t1", contrast="with"),
    Input("T1", description="t1", contrast="without"),
    Input("T2", description="t2", without="flair"),
    Input("FLAIR", description="flair"),
)


class Reader(LedgerHeaders):
    """Knows by the description whether contrast was given."""

    def words(self, instance: Instance) -> Words:
        return Words(instance.series_description, contrast="gd" in instance.series_description)


def scans(headers: Headers, *descriptions: str) -> list[Instance]:
    made = []
    for number, description in enumerate(descriptions, 2):
        values = {"modality": "MR", "series_description": description}
        made += [replace(i, sop_class_uid=MR_CLASS) for i in headers(8, series=number, **values)]
    return made


def test_each_input_is_found_by_its_rule(ct_headers: Headers) -> None:
    study = group("1.2", 1, scans(ct_headers, "t2 tse", "t2 FLAIR", "T1 mprage", "T1 mprage gd"))
    choices = choose(study, card(*BRATS), Reader())
    found = [c.best.series.first.series_description for c in choices if c.best]
    assert found == ["T1 mprage gd", "T1 mprage", "t2 tse", "t2 FLAIR"]
    _, (plan,) = route(study, [card(*BRATS)], reader=Reader())
    assert (plan.series_uid, plan.input_digest) == (study.series[3].uid, input_digest(choices))


def test_the_digest_covers_every_input(ct_headers: Headers) -> None:
    instances = scans(ct_headers, "t2 tse", "t2 FLAIR", "T1 mprage", "T1 mprage gd")
    other = [replace(instances[0], digest="other"), *instances[1:]]
    digests = {input_digest(choose(group("1.2", 1, i), card(*BRATS), Reader())) for i in (instances, other)}
    assert len(digests) == 2


def test_an_input_that_is_lacking_is_named(ct_headers: Headers) -> None:
    study = group("1.2", 1, scans(ct_headers, "t2 tse", "T1 mprage", "T1 mprage gd"))
    decisions, plans = route(study, [card(*BRATS)], reader=Reader())
    assert plans == []
    assert decisions[-1].reason == "no series of the study is the model's FLAIR"
    assert "as T1c: its description does not match 't1'" in [d.reason for d in decisions]
    assert "as T1c: it is without contrast" in [d.reason for d in decisions]


def test_a_series_of_the_right_kind_with_a_gap_is_planned_to_say_so(ct_headers: Headers) -> None:
    chest = replace(card(modality="CT", sop_classes=(ct_headers(1)[0].sop_class_uid,)), inputs=())
    instances = ct_headers(20)
    holed = [*instances[:4], *instances[6:]]
    decisions, (plan,) = route(group("1.2", 1, holed), [chest])
    assert decisions[0].chosen
    assert decisions[0].reason.startswith("it is what the model reads, but unfit, which will be the answer: slices are")
    assert plan.input_digest == series_digest(holed) == series_digest(holed[::-1])


def test_a_whole_series_is_preferred_to_one_with_a_gap(ct_headers: Headers) -> None:
    chest = replace(card(modality="CT", sop_classes=(ct_headers(1)[0].sop_class_uid,)), inputs=())
    holed = ct_headers(40, series=2, spacing=1.0)
    study = group("1.2", 1, [*holed[:4], *holed[6:], *ct_headers(10, series=3)])
    _, (plan,) = route(study, [chest])
    assert plan.series_uid == study.series[1].uid


def test_of_two_phases_the_first_is_read_and_named(ct_headers: Headers) -> None:
    chest = replace(card(modality="CT", sop_classes=(ct_headers(1)[0].sop_class_uid,)), inputs=())
    phases = [
        replace(i, acquisition_number=n, sop_instance_uid=f"{i.sop_instance_uid}.{n}")
        for n in (2, 1)
        for i in ct_headers(10)
    ]
    decisions, plans = route(group("1.2", 1, phases), [chest])
    assert len(plans) == 1
    assert [(d.series_title, d.chosen) for d in decisions] == [
        ("series 2, AcquisitionNumber 1", True),
        ("series 2, AcquisitionNumber 2", False),
    ]


def test_a_film_and_an_image_go_to_the_models_that_read_them(ct_headers: Headers) -> None:
    still = replace(ct_headers(1, modality="US")[0], position=(), orientation=(), pixel_spacing=())
    study = group("1.2", 1, [still])
    classes = (still.sop_class_uid,)
    _, plans = route(study, [card(modality="US", sop_classes=classes, kind="image")])
    assert len(plans) == 1
    decisions, plans = route(study, [card(modality="US", sop_classes=classes, kind="frames", min_slices=2)])
    assert plans == []
    assert decisions[0].reason == "it has 1 frames, the model needs 2"


def _all(folder: Path, scratch: Path) -> Iterator[Instance]:
    for archive in folder.glob("*.tar.xz"):
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
    for path in sorted(p for root in (folder, scratch) for p in root.rglob("*") if p.is_file()):
        try:
            yield replace(read_file(path), path=str(path))
        except Exception:
            continue


@pytest.mark.parametrize("name", ["ct-head-phantom-study", "not-for-ai", "us-xray-misc", "mr-liver-small"])
@pytest.mark.filterwarnings("ignore")
def test_ct_chest_declines_what_is_not_for_it(data: Path, tmp_path: Path, name: str) -> None:
    """The head phantom, the localizers and everything that is not for AI: each series with its own reason, no job."""
    studies: dict[str, list[Instance]] = {}
    for instance in _all(data / name, tmp_path):
        studies.setdefault(instance.study_uid, []).append(instance)
    assert studies
    for uid, instances in studies.items():
        study = group(uid, 1, instances)
        decisions, plans = route(study, [read_card(CT_CHEST)], reader=SpoolFrames(Path))
        assert plans == []
        assert {d.series_uid for d in decisions if d.series_uid} == {s.uid for s in study.series}
        assert all(d.reason for d in decisions)
