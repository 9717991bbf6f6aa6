"""Studies meet models: which series is read, and the sentence that says why or why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from overread.domain.called import PRIORITIES, CalledAE, Errand, errand
from overread.domain.card import Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.events import Event, JobMoved, StudyRouted
from overread.domain.geometry import stack
from overread.domain.study import Instance, Series, group
from overread.ledger import Ledger, arrivals, open_ledger, views
from overread.ledger.arrivals import Arrival
from overread.route.router import route, route_complete_studies
from overread.route.rules import judge

Headers = Callable[..., list[Instance]]
SCOUT = {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}


def card(name: str = "lungs", version: str = "1", **accepts: object) -> Card:
    wanted = Accepts(**{"modality": "CT", "min_slices": 5, "max_slice_spacing_mm": 6.0, **accepts})  # type: ignore[arg-type]
    label = Label(1, "Lung", Code("39607008", "SCT", "Lung"))
    return Card(name, version, name, "overread", "monai-bundle", "m.pt", "00", wanted, (label,), Path(name))


def series(instances: list[Instance], **values: object) -> Series:
    return Series(instances[0].series_uid, tuple(replace(i, **values) for i in instances))  # type: ignore[arg-type]


def test_a_series_that_fits_is_described(ct_headers: Headers) -> None:
    verdict = judge(series(ct_headers(20)), card())
    assert verdict.stack is not None
    assert verdict.reason == "20 slices every 2.50 mm"


def test_a_localizer_inside_the_series_is_left_out(ct_headers: Headers) -> None:
    axial = ct_headers(20)
    scout = replace(axial[0], sop_instance_uid="9.9", orientation=(1.0, 0, 0, 0, 0, -1.0), rows=9, **SCOUT)
    verdict = judge(series([scout, *axial]), card())
    assert verdict.reason == "20 slices every 2.50 mm, 1 localizer left out"
    assert verdict.stack is not None
    assert verdict.stack.digest() == stack(axial).digest()


@pytest.mark.parametrize(
    ("values", "accepts", "reason"),
    [
        (SCOUT, {}, "it is a localizer"),
        ({"modality": "MR"}, {}, "its modality is MR, the model reads CT"),
        ({"modality": ""}, {}, "its modality is not given, the model reads CT"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4"}, {}, "it is a segmentation, not a scan"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.7"}, {}, "it is a segmentation, not a scan"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.30"}, {}, "it is a parametric map, not a scan"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, {}, "it is a secondary capture, not a scan"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.481.3"}, {}, "it is an RT structure set, not a scan"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34"}, {}, "it is a structured report, not a scan"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.11.1"}, {}, "it is a presentation state, not a scan"),
        (
            {"manufacturer": "overread", "image_type": ("DERIVED", "PRIMARY")},
            {},
            "it was made by overread; results are never read again",
        ),
        ({"manufacturer": "Overread", "image_type": ()}, {}, "it was made by overread; results are never read again"),
        (
            {"image_type": ("DERIVED", "PRIMARY"), "equipment_purposes": ("109102",)},
            {},
            "it was made by processing software from other images (derived, with processing equipment)",
        ),
        (
            {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"},
            {},
            "20 of 20 instances have a SOP Class that the model does not read",
        ),
        ({"orientation": (1.0, 0, 0, 0, 0, -1.0)}, {}, "its plane is coronal, the model reads axial"),
        ({"orientation": ()}, {}, "its plane is unknown, the model reads axial"),
        ({}, {"min_slices": 21}, "it has 20 slices, the model needs 21"),
        ({}, {"max_slices": 19}, "it has 20 slices, the model takes 19 at most"),
        ({"body_part": "HEAD"}, {"body_parts": ("LUNG", "RIB")}, "its body part is HEAD, the model reads LUNG or RIB"),
        ({}, {"max_slice_spacing_mm": 2.0}, "its slices are 2.50 mm apart, the model takes 2 mm at most"),
        ({}, {"min_length_mm": 51.0}, "it covers 50 mm, the model needs 51 mm"),
        ({"position": (0.0, 0.0, 0.0)}, {}, "19 slices repeat a position (several phases or time points)"),
        ({"pixel_spacing": ()}, {}, "20 of 20 slices have no usable PixelSpacing"),
    ],
)
def test_what_does_not_fit_is_declined_with_the_reason(
    ct_headers: Headers, values: dict, accepts: dict, reason: str
) -> None:
    verdict = judge(series(ct_headers(20), **values), card(**accepts))
    assert (verdict.stack, verdict.reason) == (None, reason)


@pytest.mark.parametrize(
    ("values", "accepts"),
    [
        ({"orientation": (1.0, 0, 0, 0, 0, -1.0), "modality": "MR"}, {"plane": "coronal", "modality": "MR"}),
        ({"body_part": ""}, {"body_parts": ("CHEST",)}),
        ({"body_part": "Chest_Abdomen"}, {"body_parts": ("chest",)}),
        ({"image_type": ("DERIVED", "SECONDARY")}, {}),
        ({"equipment_purposes": ("109102",)}, {}),
        ({"manufacturer": "overread"}, {}),
    ],
    ids=["coronal MR", "no body part given", "body part in any case", "derived", "processed original", "phantom"],
)
def test_what_only_looks_unusual_is_read(ct_headers: Headers, values: dict, accepts: dict) -> None:
    instances = ct_headers(20)
    if "orientation" in values:
        instances = ct_headers(20, row=(1.0, 0, 0), column=(0, 0, -1.0))
    assert judge(series(instances, **values), card(**accepts)).stack is not None


def test_the_thinnest_is_preferred_and_the_others_are_told_so(ct_headers: Headers) -> None:
    study = group("1.2", 1, [*ct_headers(20, spacing=5.0, series=2), *ct_headers(50, spacing=2.0, series=3)])
    decisions, (plan,) = route(study, [card()])
    assert plan.series_uid == study.series[1].uid
    assert plan.input_digest == stack(study.series[1].instances).digest()
    assert [(d.series_title, d.chosen, d.reason) for d in decisions] == [
        (
            "series 2",
            False,
            "it suits the model (20 slices every 5.00 mm), but series 3 is preferred (50 slices every 2.00 mm)",
        ),
        ("series 3", True, "50 slices every 2.00 mm"),
    ]


def test_most_slices_may_be_preferred_instead(ct_headers: Headers) -> None:
    study = group("1.2", 1, [*ct_headers(60, spacing=5.0, series=2), *ct_headers(50, spacing=2.0, series=3)])
    _, (plan,) = route(study, [card(prefer="most slices")])
    assert plan.series_uid == study.series[0].uid


def test_of_equals_the_original_and_then_the_lower_number_is_read(ct_headers: Headers) -> None:
    derived = ct_headers(20, series=2, image_type=("DERIVED", "SECONDARY"))
    study = group("1.2", 1, [*derived, *ct_headers(20, series=4), *ct_headers(20, series=3)])
    _, (plan,) = route(study, [card()])
    assert plan.series_uid == ct_headers(1, series=3)[0].series_uid


def test_the_choice_does_not_depend_on_the_order_of_arrival(ct_headers: Headers) -> None:
    instances = [*ct_headers(20, series=2), *ct_headers(20, series=3)]
    assert route(group("1.2", 1, instances), [card()])[1] == route(group("1.2", 1, instances[::-1]), [card()])[1]


def test_a_study_without_a_fitting_series_has_a_decision_of_its_own(ct_headers: Headers) -> None:
    decisions, plans = route(group("1.2", 1, ct_headers(20, modality="MR")), [card()])
    assert plans == []
    assert [(d.series_uid != "", d.chosen, d.reason) for d in decisions] == [
        (True, False, "its modality is MR, the model reads CT"),
        (False, False, "no series of the study suits the model"),
    ]


def test_each_model_chooses_for_itself(ct_headers: Headers) -> None:
    study = group("1.2", 1, [*ct_headers(20, series=2), *ct_headers(20, series=3, modality="MR")])
    wanted = [card("lungs"), card("liver", modality="MR"), card("heart", modality="US")]
    decisions, plans = route(study, wanted)
    assert [(p.model, p.series_uid) for p in plans] == [("lungs", study.series[0].uid), ("liver", study.series[1].uid)]
    assert {d.model for d in decisions if not d.series_uid} == {"heart"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    books = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield books
    books.close()


def complete(ledger: Ledger, instances: list[Instance], at: float) -> None:
    arrivals.record(ledger, [Arrival(replace(i, path=i.sop_instance_uid), 1, at) for i in instances])
    for waiting in arrivals.waiting(ledger):
        arrivals.complete(ledger, waiting, at)


def test_complete_studies_meet_the_models_once(ledger: Ledger, ct_headers: Headers) -> None:
    events: list[Event] = []
    complete(ledger, ct_headers(20), 10)
    assert route_complete_studies(ledger, [card(), card("liver", modality="MR")], events.append) == 1
    assert route_complete_studies(ledger, [card()], events.append) == 0
    uid = ct_headers(1)[0].study_uid
    assert events == [StudyRouted(uid, 1, 1)]
    told = views.story(ledger, uid)
    assert told is not None
    assert [(j.row.model, j.row.state) for j in told.jobs] == [("lungs", "SCHEDULED")]
    assert len(told.decisions) == 3


def test_growth_supersedes_and_says_so(ledger: Ledger, ct_headers: Headers) -> None:
    events: list[Event] = []
    complete(ledger, ct_headers(20), 10)
    route_complete_studies(ledger, [card()], events.append)
    complete(ledger, ct_headers(25), 20)
    route_complete_studies(ledger, [card()], events.append)
    (moved,) = [e for e in events if isinstance(e, JobMoved)]
    assert (moved.before, moved.after, moved.why) == ("SCHEDULED", "SUPERSEDED", "superseded by a later revision")


def test_growth_that_the_model_does_not_read_changes_nothing(ledger: Ledger, ct_headers: Headers) -> None:
    """Our own result comes back from the PACS into the study: no new job, no loop."""
    events: list[Event] = []
    complete(ledger, ct_headers(20), 10)
    route_complete_studies(ledger, [card()], events.append)
    own = ct_headers(1, series=99, modality="SEG", manufacturer="overread", image_type=("DERIVED", "PRIMARY"))
    complete(ledger, [replace(own[0], sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4")], 20)
    assert route_complete_studies(ledger, [card()], events.append) == 1
    told = views.story(ledger, own[0].study_uid)
    assert told is not None
    assert [(j.row.revision, j.row.state) for j in told.jobs] == [(1, "SCHEDULED")]


# ---------------------------------------------------------------------------------------------- called AE titles

SERVED = {
    "OVERREAD": CalledAE("OVERREAD"),
    "STAT": CalledAE("STAT", "STAT", "head"),
    "LUNGS": CalledAE("LUNGS", "LOW", "chest", ("lungs",)),
    "LIVER": CalledAE("LIVER", "LOW", "", ("liver",)),
}


@pytest.mark.parametrize(
    ("called", "priority", "hint", "models"),
    [
        ((), "ROUTINE", "", None),
        (("OVERREAD",), "ROUTINE", "", None),
        (("WHOEVER",), "ROUTINE", "", None),
        (("STAT",), "STAT", "head", None),
        (("OVERREAD", "STAT"), "STAT", "head", None),
        (("LUNGS",), "LOW", "chest", {"lungs"}),
        (("LIVER", "LUNGS"), "LOW", "chest", {"lungs", "liver"}),
        (("LUNGS", "STAT"), "STAT", "chest\\head", None),
    ],
)
def test_what_the_called_titles_come_to(called: tuple, priority: str, hint: str, models: set | None) -> None:
    """The most urgent counts, and what any of them lets read may be read."""
    assert errand(called, SERVED) == Errand(priority, hint, None if models is None else frozenset(models))


def test_urgency_goes_before_what_a_card_wishes() -> None:
    """A card's priority decides between jobs of the same urgency, however large it is."""
    ranks = [Errand(p).rank(of_card) for p in reversed(PRIORITIES) for of_card in (-10**6, -1, 0, 1, 10**6)]
    assert ranks == sorted(set(ranks))
    assert Errand().rank(7) == 7


def test_a_study_sent_to_the_title_of_some_models_is_read_by_those(ct_headers: Headers) -> None:
    study = group("1.2", 1, ct_headers(20), ("LUNGS",))
    decisions, (plan,) = route(study, [card("liver"), card("lungs")], errand(study.called_aes, SERVED))
    assert (plan.model, plan.priority, plan.urgency, plan.hint, plan.called_aes) == (
        "lungs", -2000, "LOW", "chest", "LUNGS",
    )  # fmt: skip
    assert decisions[0].reason == "the study was sent to LUNGS, for other models"
