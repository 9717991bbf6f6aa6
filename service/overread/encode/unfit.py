"""Why a study could not be analysed, as a report: silence would be taken for "nothing found".

A Comprehensive 3D SR (TID 1500) without measurements. Its Qualitative Evaluations say that the analysis failed, and in
words why. It needs no geometry: that is often just what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    LanguageOfContentItemAndDescendants,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.card import Card
from overread.domain.findings import Findings
from overread.domain.geometry import Stack
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.encode import seal
from overread.encode.codes import QUALITATIVE_EVALUATIONS, coded, procedure
from overread.encode.report import observer
from overread.encode.sources import REQUIRED, Sources, read_identity
from overread.ports import Read

KIND = "unfit"


def encode_unfit(
    card: Card, instances: Sequence[Instance], first: Path, reason: str, folder: Path, *, key: str, made_at: str
) -> Result:
    """Write ``unfit.dcm`` into ``folder`` and describe it.

    ``instances`` are the images that were not analysed, ``first`` the file of the first of them; ``key`` and
    ``made_at`` are as in ``ports.Read``. Raises Stumbled when the file cannot be read any more.
    """
    header, identity = read_identity(str(first))
    standins = tuple(_standin(header, instance) for instance in instances)
    sources = Sources((header,), standins, identity)
    unplaced = Stack(tuple(instances), np.eye(4), (1.0, 1.0, 1.0), placed=False)
    nothing = Findings(np.zeros((0, 1, 1), np.uint8), ())
    read = Read(key, made_at, card, Volume(np.zeros((0, 1, 1), np.int16), unplaced, ()), nothing)
    report = Comprehensive3DSR(
        evidence=list(standins),
        content=_root(read, instances[0].modality, reason),
        is_complete=True,
        is_verified=False,
        **seal.header(read, sources, KIND, KIND),
    )
    seal.seal(report, read, sources)
    return seal.save(report, folder, KIND)


def _standin(header: Dataset, instance: Instance) -> Dataset:
    standin = Dataset()
    for keyword in REQUIRED:
        setattr(standin, keyword, "")
    standin.SOPClassUID, standin.SOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
    standin.StudyInstanceUID, standin.SeriesInstanceUID = instance.study_uid, instance.series_uid
    standin.Modality = instance.modality or "OT"
    for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"):
        if keyword in header:
            standin.add(header[keyword])
    return standin


def _root(read: Read, modality: str, reason: str) -> ContainerContentItem:
    root = ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = ContentSequence()
    root.ContentSequence.extend(LanguageOfContentItemAndDescendants(CodedConcept("en", "RFC5646", "English")))
    root.ContentSequence.extend(observer(read))
    root.ContentSequence.append(
        CodeContentItem(codes.DCM.ProcedureReported, procedure(modality), RelationshipTypeValues.HAS_CONCEPT_MOD)
    )
    said = ContainerContentItem(coded(QUALITATIVE_EVALUATIONS), relationship_type=RelationshipTypeValues.CONTAINS)
    said.ContentSequence = ContentSequence()
    contains = RelationshipTypeValues.CONTAINS
    said.ContentSequence.append(CodeContentItem(codes.DCM.AnalysisPerformed, codes.DCM.Failed, contains))
    text = f"Could not be analysed by {read.card.title} {read.card.version}: {reason}."
    said.ContentSequence.append(TextContentItem(codes.DCM.Comment, text, contains))
    root.ContentSequence.append(said)
    return root
