"""The last hand on a built object: fixed stamps, one maker, the source's patient and study, and the file."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from highdicom._standard_utils import is_attribute_in_iod
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.result import Result
from overread.domain.variant import FLOOR
from overread.encode import identity
from overread.encode.sources import UTF_8, Sources, unperturbed
from overread.ports import Read


def header(
    read: Read, sources: Sources, kind: str, role: str, *, instance: str = "", number: int = 1
) -> dict[str, Any]:
    """The arguments that all builders share: UIDs, numbers, equipment, stamps and character set.

    ``role`` names the series within the reading, ``instance`` the object (where it is not the only one), which is its
    ``number``-th.
    """
    made_by = identity.maker(read.card)
    made_at = _made_at(read, sources)
    return {
        "series_instance_uid": identity.uid(read.key, f"{role} series"),
        "series_number": identity.series_number(read, kind),
        "sop_instance_uid": identity.uid(read.key, f"{instance or role} instance"),
        "instance_number": number,
        "manufacturer": made_by.manufacturer,
        "manufacturer_model_name": made_by.model,
        "software_versions": made_by.version,
        "device_serial_number": made_by.serial,
        "series_description": identity.series_description(read, kind),
        "content_date": made_at.strftime("%Y%m%d"),
        "content_time": made_at.strftime("%H%M%S"),
        "specific_character_set": UTF_8,
    }


def file_name(kind: str, variant: str, number: int = 1) -> str:
    """``seg``, ``seg-2``, ``seg-labelmap-2``: without an ending, unlike that of any other result of the reading."""
    return "-".join(
        (kind, *((variant,) if variant not in ("", FLOOR) else ()), *((str(number),) if number > 1 else ()))
    )


def algorithm(read: Read) -> AlgorithmIdentificationSequence:
    """The model as the algorithm of a segment: name, version, source are the equipment's (IHE AIR, 3:6.5.3.1)."""
    made_by = identity.maker(read.card)
    family = codes.DCM.ArtificialIntelligence
    return AlgorithmIdentificationSequence(made_by.model, family, made_by.version, source=made_by.manufacturer)


def seal(dataset: Dataset, read: Read, sources: Sources) -> None:
    """Take out what would differ from run to run and put in who made it, whose it is, and what it is asked for by."""
    dataset.InstanceCreationDate = dataset.ContentDate
    dataset.InstanceCreationTime = dataset.ContentTime
    acquisition = [i for i in dataset.ContributingEquipmentSequence if _purpose(i) != "109102"]
    dataset.ContributingEquipmentSequence = [*acquisition, *(_equipment(read, m) for m in identity.makers(read.card))]
    with unperturbed():
        for element in sources.identity:
            dataset.add(element)
        _fill_query_keys(dataset, sources)


def pin_dimensions(dataset: Dataset, organization_uid: str) -> None:
    """The library draws a random UID for the organization of the dimensions; the reading's own is as unique."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.get("DimensionIndexSequence", [])):
        item.DimensionOrganizationUID = organization_uid


def save(dataset: Dataset, folder: Path, name: str, kind: str, **described: str) -> Result:
    """Write ``<name>.dcm`` into ``folder`` and describe it."""
    path = folder / f"{name}.dcm"
    with unperturbed():
        dataset.save_as(path, enforce_file_format=True)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return describe(dataset, path, digest, kind, **described)


def describe(dataset: Dataset, path: Path, digest: str, kind: str, **described: str) -> Result:
    """A written object as a result; ``described`` are its alternative, variant and provenance."""
    return Result(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        path=path.name,
        digest=digest,
        **described,
    )


def _fill_query_keys(dataset: Dataset, sources: Sources) -> None:
    """What IHE AIR (RAD-137) asks for results by, as far as the object's IOD has it."""
    sop_class = str(dataset.SOPClassUID)
    stamped = {
        **dict.fromkeys(("SeriesDate", "PerformedProcedureStepStartDate"), dataset.ContentDate),
        **dict.fromkeys(("SeriesTime", "PerformedProcedureStepStartTime"), dataset.ContentTime),
    }
    for keyword, value in stamped.items():
        if keyword not in dataset and is_attribute_in_iod(keyword, sop_class):
            setattr(dataset, keyword, value)
    for element in sources.request:
        if is_attribute_in_iod(element.keyword, sop_class):
            dataset.add(element)


def requests(sources: Sources) -> list[Dataset]:
    """The orders that a report answers (Referenced Request Sequence, PS3.3 C.17.2), as far as the source names them."""
    found = []
    for asked in sources.request.get("RequestAttributesSequence", []):
        item = Dataset()
        item.StudyInstanceUID = sources.identity.StudyInstanceUID
        for keyword in ("ReferencedStudySequence", "RequestedProcedureCodeSequence"):
            setattr(item, keyword, asked.get(keyword, []))
        item.AccessionNumber = asked.get("AccessionNumber", sources.identity.AccessionNumber)
        for keyword in ("RequestedProcedureID", "RequestedProcedureDescription"):
            setattr(item, keyword, asked.get(keyword, ""))
        item.PlacerOrderNumberImagingServiceRequest = item.FillerOrderNumberImagingServiceRequest = ""
        found.append(item)
    return found


def _made_at(read: Read, sources: Sources) -> datetime:
    return identity.made_at(read, str(sources.identity.get("TimezoneOffsetFromUTC", "")))


def _purpose(item: Dataset) -> str:
    return str(item.PurposeOfReferenceCodeSequence[0].CodeValue)


def _equipment(read: Read, made_by: identity.Maker) -> ContributingEquipment:
    """One algorithm as processing equipment, with its Device UID, as IHE AIR wants it (3:6.5.3.1)."""
    item = ContributingEquipment(
        made_by.manufacturer,
        codes.DCM.ProcessingEquipment,
        manufacturer_model_name=made_by.model,
        software_versions=made_by.version,
        device_serial_number=made_by.serial,
        contribution_datetime=identity.made_at(read, "").strftime("%Y%m%d%H%M%S+0000"),
        contribution_description=f"Made this object from the source images; SHA-256 {read.provenance}",
    )
    item.DeviceUID = made_by.device_uid
    return item
