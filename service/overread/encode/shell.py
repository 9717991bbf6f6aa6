"""What every object has for which highdicom has no builder: series, equipment, what it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from overread.domain.codes import Code
from overread.encode.codes import coded
from overread.encode.sources import Reference, Sources

# Body parts that a body has once (PS3.16 Annex L).
_ONCE = """
    ABDOMEN ABDOMENPELVIS ABDOMINALAORTA AORTA BLADDER BRAIN CEREBELLUM CHEST CHESTABDOMEN CHESTABDPELVIS COCCYX COLON
    CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS GALLBLADDER HEAD HEADNECK HEART ILEUM JAW JEJUNUM LARYNX LIVER
    LSPINE LSSPINE MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV PANCREAS PELVIS PHARYNX PROSTATE
    RECTUM SPINE SPLEEN SSPINE STERNUM STOMACH THORACICAORTA THYMUS THYROID TLSPINE TRACHEA TSPINE UTERUS VAGINA
    WHOLEBODY
"""
_WRITTEN_ON = frozenset(("US", "IVUS", "ES", "XC", "OT", "SC", "XA", "RF"))
PROCESSED = Code("121322", "DCM", "Source image for image processing operation")


def shell(sources: Sources, sop_class_uid: str, modality: str, header: dict[str, Any]) -> Dataset:
    """An object of ``sop_class_uid`` with nothing in it yet; ``header`` is what ``seal.header`` gives."""
    date, time = (header.pop(f"content_{part}") for part in ("date", "time"))  # not every IOD has them
    made = SOPClass(
        study_instance_uid=sources.instances[0].study_uid,
        sop_class_uid=sop_class_uid,
        modality=modality,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **header,
    )
    made.ContentDate, made.ContentTime = date, time
    made.ContributingEquipmentSequence = []
    return made


def source_images(references: Iterable[Reference]) -> list[Dataset]:
    """Items of Source Image Sequence (PS3.3 C.7.6.1.1.4), frames of one instance in one item."""
    found: dict[str, Dataset] = {}
    for kind, uid, frame in references:
        item = found.setdefault(uid, Dataset())
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, uid
        if frame:
            item.ReferencedFrameNumber = [*_numbers(item), frame]
        item.PurposeOfReferenceCodeSequence = [coded(PROCESSED)]
    return list(found.values())


def tell_laterality(made: Dataset, sources: Sources) -> None:
    """Laterality is of type 2C in General Series (PS3.3 C.7.3.1): there, though nobody knows it, unless a body has one
    such part only."""
    if str(sources.headers[0].get("BodyPartExamined", "")).upper() not in _ONCE.split():
        made.Laterality = ""


def burned_in(sources: Sources) -> str:
    """Whether who the patient is can be read in the pixels (PS3.3 C.7.6.1): pictures made here say nothing of that, so
    only what stood in the source's, which of some modalities must be thought to be there unless it is denied."""
    said = str(sources.headers[0].get("BurnedInAnnotation", "")).upper()
    return "YES" if said == "YES" or (said != "NO" and sources.instances[0].modality in _WRITTEN_ON) else "NO"


def _numbers(item: Dataset) -> list[int]:
    value = item.get("ReferencedFrameNumber", [])
    return [int(v) for v in value] if isinstance(value, Iterable) and not isinstance(value, str) else [int(value)]
