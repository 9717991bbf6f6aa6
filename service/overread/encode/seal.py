"""The last hand on a built object: fixed stamps, one maker, the source's patient and study, and the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.result import Result
from overread.encode import identity
from overread.encode.sources import UTF_8, Sources, unperturbed
from overread.ports import Read


def header(read: Read, sources: Sources, kind: str, role: str) -> dict[str, object]:
    """The arguments that all builders share: UIDs, numbers, equipment, stamps and character set."""
    made_by = identity.maker(read.card)
    made_at = identity.made_at(read, str(sources.identity.get("TimezoneOffsetFromUTC", "")))
    return {
        "series_instance_uid": identity.uid(read.key, f"{role} series"),
        "series_number": identity.series_number(read.card, kind),
        "sop_instance_uid": identity.uid(read.key, f"{role} instance"),
        "instance_number": 1,
        "manufacturer": made_by.manufacturer,
        "manufacturer_model_name": made_by.model,
        "software_versions": made_by.version,
        "device_serial_number": made_by.serial,
        "series_description": identity.series_description(read.card, kind),
        "content_date": made_at.strftime("%Y%m%d"),
        "content_time": made_at.strftime("%H%M%S"),
        "specific_character_set": UTF_8,
    }


def algorithm(read: Read) -> AlgorithmIdentificationSequence:
    """The model as the algorithm of a segment."""
    made_by = identity.maker(read.card)
    family = codes.DCM.ArtificialIntelligence
    return AlgorithmIdentificationSequence(made_by.model, family, made_by.version, source=made_by.manufacturer)


def seal(dataset: Dataset, read: Read, sources: Sources) -> None:
    """Take out what would differ from run to run and put in who made it and whose it is."""
    dataset.InstanceCreationDate = dataset.ContentDate
    dataset.InstanceCreationTime = dataset.ContentTime
    acquisition = [i for i in dataset.ContributingEquipmentSequence if _purpose(i) != "109102"]
    dataset.ContributingEquipmentSequence = [*acquisition, _equipment(read)]
    with unperturbed():
        for element in sources.identity:
            dataset.add(element)


def save(dataset: Dataset, folder: Path, kind: str) -> Result:
    """Write ``<kind>.dcm`` into ``folder`` and describe it."""
    path = folder / f"{kind}.dcm"
    with unperturbed():
        dataset.save_as(path, enforce_file_format=True)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Result(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        path=path.name,
        digest=digest,
    )


def _purpose(item: Dataset) -> str:
    return str(item.PurposeOfReferenceCodeSequence[0].CodeValue)


def _equipment(read: Read) -> ContributingEquipment:
    """The one processing equipment, with its Device UID, as IHE AIR wants it."""
    made_by = identity.maker(read.card)
    item = ContributingEquipment(
        made_by.manufacturer,
        codes.DCM.ProcessingEquipment,
        manufacturer_model_name=made_by.model,
        software_versions=made_by.version,
        device_serial_number=made_by.serial,
        contribution_datetime=identity.made_at(read, "").strftime("%Y%m%d%H%M%S+0000"),
        contribution_description="Made this object from the source images",
    )
    item.DeviceUID = made_by.device_uid
    return item
