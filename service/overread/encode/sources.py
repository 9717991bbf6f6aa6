"""The headers of the source slices: what results copy from them, and stand-ins that survive imperfect ones.

Patient and study attributes go from the first slice into the result as they are, flawed or not, because the archive
files by them; only their text is written in UTF-8. What builds the objects sees stand-ins without them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import format_number_as_ds

from overread.domain.errors import Misplaced, Stumbled
from overread.domain.volume import Volume

UTF_8 = "ISO_IR 192"

# Type 2 in Patient and General Study (PS3.3 C.7.1.1, C.7.2.1): there even if empty.
REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
IDENTITY = (
    *REQUIRED,
    *("StudyInstanceUID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID"),
    *("OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "PatientBirthTime", "EthnicGroup"),
    *("PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyDescription", "IssuerOfAccessionNumberSequence", "ReferencedStudySequence", "ProcedureCodeSequence"),
    *("PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "PatientAge", "PatientSize", "PatientWeight"),
    *("AdmittingDiagnosesDescription", "AdmissionID", "IssuerOfAdmissionIDSequence", "PregnancyStatus"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "TimezoneOffsetFromUTC"),
    *("ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "LongitudinalTemporalInformationModified"),
    *("LongitudinalTemporalOffsetFromEvent", "LongitudinalTemporalEventType"),
)
_COPIED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("Rows", "Columns", "ImagePositionPatient", "PixelSpacing", "PositionReferenceIndicator"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "Manufacturer"),
    *("ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "InstitutionName", "StationName"),
)
_PLACE = ("ImageOrientationPatient", "SliceThickness")
_ONE_OF = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")


@dataclass(frozen=True)
class Sources:
    """``headers`` as the files have them and ``standins`` for building, both in the order of the volume's slices;
    ``identity`` holds the patient and study attributes that a result must carry."""

    headers: tuple[Dataset, ...]
    standins: tuple[Dataset, ...]
    identity: Dataset


def read_sources(volume: Volume) -> Sources:
    """Read the headers of the source files, without pixels.

    Raises Stumbled when a file cannot be read any more; Misplaced when the files are not the volume's slices or not of
    one patient, study, series and frame of reference.
    """
    with unperturbed():
        headers = tuple(_header(path) for path in volume.paths)
        _require_same_slices(volume, headers)
        _require_one_of_each(headers)
        identity = _identity(headers[0])
        standins = tuple(_standin(header, headers[0], volume) for header in headers)
    return Sources(headers, standins, identity)


def read_identity(path: str) -> tuple[Dataset, Dataset]:
    """One source file's header, without pixels, and the patient and study attributes that a result must carry.

    Raises Stumbled when the file cannot be read any more.
    """
    with unperturbed():
        header = _header(path)
        return header, _identity(header)


@contextmanager
def unperturbed() -> Iterator[None]:
    """pydicom warns of each imperfect value that it reads; sources may be imperfect, and warnings would quote them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom(\.|$)")
        yield


def _header(path: str) -> Dataset:
    keywords: list[int | str | tuple[int, int]] = [*IDENTITY, *_COPIED, *_PLACE]
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=keywords)
    except (OSError, InvalidDicomError) as error:
        raise Stumbled(f"a source slice cannot be read again ({type(error).__name__})") from None


def _require_same_slices(volume: Volume, headers: tuple[Dataset, ...]) -> None:
    if any(number for _, number in volume.sources):
        raise Misplaced("the sources are frames of a multi-frame instance, to which results cannot refer yet")
    if len(headers) != len(volume.stack.instances) or len(headers) != len(volume.voxels):
        raise Misplaced(
            f"{len(volume.voxels)} slices of voxels, {len(volume.stack.instances)} instances, {len(headers)} files"
        )
    for k, (header, instance) in enumerate(zip(headers, volume.stack.instances, strict=True), 1):
        if str(header.get("SOPInstanceUID", "")) != instance.sop_instance_uid:
            raise Misplaced(f"the file of slice {k} holds another SOP instance than the one that was read")


def _require_one_of_each(headers: tuple[Dataset, ...]) -> None:
    for keyword in _ONE_OF:
        values = {str(header.get(keyword, "")) for header in headers}
        if len(values) > 1:
            raise Misplaced(f"{keyword} differs between the source slices ({len(values)} values)")


def _identity(header: Dataset) -> Dataset:
    header.decode()  # text of any character set, in nested items too, becomes Unicode here
    identity = Dataset()
    for keyword in IDENTITY:
        if keyword in header:
            identity.add(header[keyword])
        elif keyword in REQUIRED:
            setattr(identity, keyword, "")
    return identity


def _standin(header: Dataset, first: Dataset, volume: Volume) -> Dataset:
    """A source slice as the builder wants it: no patient, one orientation for all (headers differ in the last digit),
    and a thickness, which is the distance between slices where the header has none."""
    standin = Dataset()
    for keyword in _COPIED:
        if keyword in header:
            standin.add(header[keyword])
    for keyword in REQUIRED:
        setattr(standin, keyword, "")
    standin.add(first["ImageOrientationPatient"])
    thickness = _number(header.get("SliceThickness")) or volume.stack.spacing_mm[0]
    standin.SliceThickness = format_number_as_ds(float(thickness))
    if not standin.get("Modality"):
        standin.Modality = volume.stack.instances[0].modality or "OT"
    return standin


def _number(value: object) -> float:
    try:
        return max(float(str(value)), 0.0)
    except ValueError:
        return 0.0
