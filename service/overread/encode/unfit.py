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

from overread.domain.errors import Misplaced
from overread.domain.findings import Findings
from overread.domain.geometry import Stack
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.encode import gate, seal
from overread.encode.codes import QUALITATIVE_EVALUATIONS, coded, procedure
from overread.encode.report import observer
from overread.encode.reread import Reread
from overread.encode.sources import REQUIRED, read_first
from overread.encode.superseded import predecessor, reference
from overread.ports import Read

KIND = "unfit"
NOTHING = Findings(np.zeros((0, 1, 1), np.uint8), ())


def unread(instances: Sequence[Instance], first: Path) -> Volume:
    """Images that could not be analysed, as a volume without voxels or a place; ``first`` is the file of the first."""
    nowhere = Stack(tuple(instances), np.eye(4), (1.0, 1.0, 1.0), placed=False)
    return Volume(np.zeros((0, 1, 1), np.int16), nowhere, (str(first),))


def encode_unfit(read: Read, reason: str, folder: Path) -> Result:
    """Write ``unfit.dcm`` into ``folder`` and describe it; the volume of ``read`` is what ``unread`` gives.

    Raises Stumbled when the first file cannot be read any more; Misplaced, and leaves the file, when what was written
    is not the source's, or not valid, or does not give the reason.
    """
    sources, instances = read_first(read.volume), read.volume.stack.instances
    before = predecessor(read, "")
    report = Comprehensive3DSR(
        evidence=[_standin(sources.headers[0], instance) for instance in instances],
        content=_root(read, instances[0].modality, reason),
        is_complete=True,
        is_verified=False,
        previous_versions=[reference(before)] if before else None,
        **seal.header(read, sources, KIND, KIND + (f" after {before.sop_instance_uid}" if before else "")),
    )
    seal.seal(report, read, sources)
    result = seal.save(report, folder, KIND, KIND, provenance=str(read.provenance))
    gate.pass_object(folder / result.path, read, sources, lambda found: _check(found, reason))
    return result


def _check(found: Reread, reason: str) -> None:
    if not str(found.header.ContentSequence[-1].ContentSequence[-1].TextValue).endswith(f": {reason}."):
        raise Misplaced("the report does not give the reason why the study could not be analysed")


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
