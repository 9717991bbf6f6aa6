"""The tree of a report (TID 1500) as bytes, and what it refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from overread.domain.card import ANATOMICAL_STRUCTURE, Label
from overread.domain.codes import MILLIMETER, Code
from overread.domain.errors import Misplaced
from overread.domain.findings import Findings
from overread.domain.result import Result
from overread.encode import content, groups, identity
from overread.encode.codes import (
    ABSENT,
    COMMENT,
    NOT_VISUALIZED,
    QUALITATIVE_EVALUATIONS,
    SUMMARY,
    WITH_FINDINGS,
    WITHOUT_FINDINGS,
    modality,
    procedure,
)
from overread.encode.content import HAS_ACQ_CONTEXT, HAS_CONCEPT_MOD, HAS_OBS_CONTEXT
from overread.encode.layers import Place
from overread.encode.outline import Points, key_outlines
from overread.encode.sources import Sources
from overread.ports import Read

BOTH, VIEWER, DATA = "sr", "sr-viewer", "sr-data"

MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
CATALOG = Code("121181", "DCM", "DICOM Object Catalog")
LIBRARY, LIBRARY_GROUP = Code("111028", "DCM", "Image Library"), Code("126200", "DCM", "Image Library Group")
_LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
_PIXELS = Code("{pixels}", "UCUM", "Pixels")
_DEVICE = (Code("121005", "DCM", "Observer Type"), Code("121007", "DCM", "Device"))
_OBSERVER = (
    Code("121013", "DCM", "Device Observer Name"),
    Code("121014", "DCM", "Device Observer Manufacturer"),
    Code("121015", "DCM", "Device Observer Model Name"),
    Code("121016", "DCM", "Device Observer Serial Number"),
)
_NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104.", "1.2.840.10008.5.1.4.1.1.11.")
_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass(frozen=True)
class Draft:
    """What a report of one ``form`` is about: ``places`` of the segments that it ties itself to, and the ``catalog`` of
    what the job made, when it is the root of the result tree."""

    form: str
    read: Read
    sources: Sources
    places: Mapping[int, Place]
    catalog: Sequence[Result] = ()

    @property
    def evidence(self) -> dict[str, Result]:
        """SOP Instance UID → every result that it refers to."""
        return {r.sop_instance_uid: r for r in (*(p.result for p in self.places.values()), *self.catalog)}


def observer(read: Read) -> list[bytes]:
    """The language, and the model as the device that observed (TID 1204, 1002, 1004)."""
    made_by = identity.maker(read.card)
    told = (made_by.model, made_by.manufacturer, made_by.model, made_by.serial)
    return [
        content.code(_LANGUAGE, Code("en", "RFC5646", "English"), HAS_CONCEPT_MOD),
        content.code(*_DEVICE, HAS_OBS_CONTEXT),
        content.uid(Code("121012", "DCM", "Device Observer UID"), made_by.device_uid, HAS_OBS_CONTEXT),
        *(content.text(name, value, HAS_OBS_CONTEXT) for name, value in zip(_OBSERVER, told, strict=True)),
    ]


def procedure_reported(name: str) -> bytes:
    """What was done, by its modality."""
    return content.code(Code("121058", "DCM", "Procedure reported"), procedure(name), HAS_CONCEPT_MOD)


def tree(draft: Draft) -> bytes:
    """The children of the root, which has no measurements when nothing is outlined or measured."""
    read, form = draft.read, draft.form
    parts = [*observer(read), procedure_reported(str(draft.sources.headers[0].get("Modality", "")))]
    if form != VIEWER:
        parts.append(_library(draft.sources))
    if draft.catalog:
        parts.append(content.container(CATALOG, map(_listed, draft.catalog)))
    measured = list(_groups(draft))
    if measured:
        parts.append(content.container(MEASUREMENTS, measured))
    parts.append(content.container(QUALITATIVE_EVALUATIONS, _evaluations(draft)))
    return b"".join(parts)


def negative(findings: Findings) -> bool:
    """Whether nothing was found."""
    chosen = any(judged.chosen for judged in findings.judgements)
    return not (findings.segments or findings.detections or chosen or findings.image is not None)


def _groups(draft: Draft) -> Iterator[bytes]:
    read, found, form = draft.read, draft.read.findings, draft.form
    outlines: dict[int, tuple[int, Points]] = {}
    for layer in found.layers if found.segments else ():
        outlines |= key_outlines(layer)
    for segment in found.segments:
        if segment.value not in outlines:
            raise Misplaced(f"segment {segment.value} has no voxels")
        place = draft.places.get(segment.value)
        if form == DATA and place is not None:
            yield groups.volumetric(read, segment, place, draft.sources)
        else:
            drawn = groups.region(draft.sources, *outlines[segment.value])
            yield groups.outlined(read, segment, drawn, place if form == BOTH else None)
    for number, box in enumerate(found.detections, 1):
        yield groups.boxed(read, draft.sources, number, box)
    if form != BOTH:
        yield from _judged(draft)


def _judged(draft: Draft) -> Iterator[bytes]:
    """Classes as groups; where all that is shown has an outline, those that the model decided for, around an image."""
    read, found = draft.read, draft.read.findings
    viewer = draft.form == VIEWER
    frame = groups.around(draft.sources) if viewer else b""
    for number, judgement in enumerate(found.judgements, 1):
        if judgement.chosen or not viewer:
            yield groups.judged(read, number, judgement, frame)
    if viewer and negative(found):
        yield groups.nothing(read, frame)


def _evaluations(draft: Draft) -> Iterator[bytes]:
    read = draft.read
    nothing = negative(read.findings)
    yield content.code(SUMMARY, WITHOUT_FINDINGS if nothing else WITH_FINDINGS)
    yield from map(groups.evaluation, read.findings.judgements)
    yield from map(_not_found, missing(read))
    if nothing:
        yield content.text(COMMENT, f"Nothing found that {read.card.title} {read.card.version} looks for.")
    yield content.text(COMMENT, "AI result, not a diagnosis.")


def missing(read: Read) -> list[Label]:
    """What was looked for and is not there."""
    findings = read.findings
    told = [s.label for s in findings.segments] + [d.label for d in findings.detections]
    told += [judged.label for judged in findings.judgements]
    return [label for label in read.card.labels if label not in told]


def _not_found(label: Label) -> bytes:
    answer = NOT_VISUALIZED if label.category.value == ANATOMICAL_STRUCTURE.value else ABSENT
    site = groups.finding_site(label)
    return content.code(label.type, answer, children=[site] if site else [])


def _library(sources: Sources) -> bytes:
    """Image Library (TID 1600): the source images, and what they share."""
    first, context = sources.headers[0], HAS_ACQ_CONTEXT
    shared = [content.code(Code("121139", "DCM", "Modality"), modality(str(first.get("Modality", ""))), context)]
    date = str(sources.identity.get("StudyDate", ""))
    if len(date) == 8 and date.isdecimal():
        shared.append(content.date(Code("111060", "DCM", "Study Date"), date, context))
    if first.get("FrameOfReferenceUID"):
        name = Code("112227", "DCM", "Frame of Reference UID")
        shared.append(content.uid(name, str(first.FrameOfReferenceUID), context))
    shared.append(content.number(Code("110910", "DCM", "Pixel Data Rows"), int(first.Rows), _PIXELS, context))
    shared.append(content.number(Code("110911", "DCM", "Pixel Data Columns"), int(first.Columns), _PIXELS, context))
    if sources.volume.placed:
        names = (Code("111026", "DCM", "Horizontal Pixel Spacing"), Code("111066", "DCM", "Vertical Pixel Spacing"))
        for name, spacing in zip(names, sources.volume.spacing_mm[:0:-1], strict=True):
            shared.append(content.number(name, float(spacing), MILLIMETER, context))
    images = [content.image(groups.SOURCE, kind, uid) for uid, kind in sources.objects.items()]
    return content.container(LIBRARY, [content.container(LIBRARY_GROUP, [*shared, *images])])


def _listed(result: Result) -> bytes:
    no_image = result.sop_class_uid.startswith(_NO_IMAGES) or result.sop_class_uid == _STRUCTURES
    build = content.composite if no_image else content.image
    return build(None, result.sop_class_uid, result.sop_instance_uid)
