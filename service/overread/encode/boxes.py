"""Boxes and classes in a report: a rectangle on the key slice with its score, and what the whole input was judged."""

from __future__ import annotations

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContentSequence,
    Measurement,
    NumContentItem,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    TrackingIdentifier,
)

from overread.domain.codes import Code
from overread.domain.findings import Detection, Judgement
from overread.encode import identity
from overread.encode.codes import ABSENT, coded, finding_site
from overread.encode.groups import region
from overread.encode.outline import Points
from overread.encode.sources import Sources
from overread.ports import Read

CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
PRESENT = Code("52101004", "SCT", "Present")


def tracking_uid(read: Read, number: int) -> str:
    """The UID of detection ``number``, counted from 1."""
    return identity.uid(read.key, f"tracking box {number}")


def rectangle(detection: Detection, shape: tuple[int, int, int]) -> tuple[int, Points]:
    """The box on its middle slice, cut to the image: slice, and closed line (5, 2) of (column, row), in the coordinates
    of ``outline.outline``."""
    k = round((detection.low[0] + detection.high[0]) / 2)
    limits = np.array([shape[2], shape[1]], np.float64)
    a = np.clip(np.array([detection.low[2], detection.low[1]]) + 0.5, 0, limits)
    b = np.clip(np.array([detection.high[2], detection.high[1]]) + 0.5, 0, limits)
    points = np.array([[a[0], a[1]], [b[0], a[1]], [b[0], b[1]], [a[0], b[1]], [a[0], a[1]]])
    return min(max(k, 0), shape[0] - 1), points


def box_group(
    read: Read, sources: Sources, number: int, found: Detection
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """The group (TID 1410) of detection ``number``."""
    made_by = identity.maker(read.card)
    site = finding_site(found.label)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(tracking_uid(read, number), found.title),
        referenced_region=region(sources, *rectangle(found, read.volume.stack.shape)),
        finding_type=coded(found.label.type),
        finding_category=coded(found.label.category),
        algorithm_id=AlgorithmIdentification(made_by.model, made_by.version, manufacturer=made_by.manufacturer),
        finding_sites=[site] if site is not None else None,
        measurements=[Measurement(coded(CERTAINTY), percent(found.score), coded(PERCENT))],
    )


def judgement_item(judgement: Judgement) -> CodeContentItem:
    """Present or absent, with the probability."""
    answer = PRESENT if judgement.chosen else ABSENT
    item = CodeContentItem(coded(judgement.label.type), coded(answer), RelationshipTypeValues.CONTAINS)
    site = finding_site(judgement.label)
    certainty = NumContentItem(
        coded(CERTAINTY),
        percent(judgement.probability),
        coded(PERCENT),
        relationship_type=RelationshipTypeValues.HAS_PROPERTIES,
    )
    item.ContentSequence = ContentSequence([certainty, *([site] if site is not None else [])])
    return item


def percent(probability: float) -> float:
    """As reports give it: in percent, with two decimals."""
    return round(100.0 * probability, 2)
