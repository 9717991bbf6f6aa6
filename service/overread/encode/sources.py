"""The headers of the source slices: what results copy from them, and stand-ins that survive imperfect ones.

Patient and study attributes go from the first slice into the result as they are, flawed or not, because the archive
files by them; only their text is written in UTF-8. What builds the objects sees stand-ins without them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName, format_number_as_ds

from overread.domain.errors import Misplaced, Stumbled, Unfit
from overread.domain.study import Instance
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
# How the order calls it: what AI results are asked for by (IHE AIR, RAD-137), where the source has it.
REQUEST = ("RequestAttributesSequence", "BodyPartExamined")
# What pictures are made by, and what may be read in them.
SHOWN = (
    *("WindowCenter", "WindowWidth", "PhotometricInterpretation", "BurnedInAnnotation", "PatientOrientation"),
    "RecognizableVisualFeatures",
)
_COPIED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("Rows", "Columns", "ImagePositionPatient", "PixelSpacing", "PositionReferenceIndicator"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "Manufacturer"),
    *("ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "InstitutionName", "StationName"),
)
_PLACE = ("ImageOrientationPatient", "SliceThickness")
_ONE_OF = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")


def _tags(*keywords: str) -> list[BaseTag]:
    return [Tag(tag) for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]


_GROUPS = _tags("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_PLACES = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
}
_TEXT = frozenset(("AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UT"))
_ESCAPE = re.compile(r"\x1b[\x20-\x2f]*[\x30-\x7e]")

_FIRST_TAGS = _tags(*IDENTITY, *REQUEST, *_COPIED, *_PLACE, *SHOWN)
_OTHER_TAGS = _tags(*_COPIED, *_PLACE, "PatientID")


class Reference(NamedTuple):
    """A slice as an object names it; ``frame`` counts from 1 and is 0 where the instance has only one."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int = 0


@dataclass(frozen=True)
class Sources:
    """``headers`` as the files have them, in the order of the volume's slices; ``identity`` holds the patient and study
    attributes that a result must carry, ``request`` what it is asked for by."""

    volume: Volume
    headers: tuple[Dataset, ...]
    identity: Dataset
    request: Dataset

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The source slices."""
        return self.volume.stack.instances

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """How each slice is referred to, in their order."""
        found = zip(self.instances, self.volume.sources, strict=True)
        return tuple(Reference(i.sop_class_uid, uid, frame) for i, (uid, frame) in found)

    @cached_property
    def objects(self) -> dict[str, str]:
        """SOP Instance UID → SOP Class UID of the source objects, each once."""
        return {i.sop_instance_uid: i.sop_class_uid for i in self.instances}

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """ImagePositionPatient of each slice: (slices, 3) float64, mm, LPS."""
        return np.array([[float(v) for v in header.ImagePositionPatient] for header in self.headers], np.float64)

    @cached_property
    def standins(self) -> tuple[Dataset, ...]:
        """All slices as a builder wants them."""
        return tuple(self.standin(k) for k in range(len(self.headers)))

    def standin(self, k: int) -> Dataset:
        """Slice ``k`` as a builder wants it."""
        with unperturbed():
            return _standin(self.headers[k], self.headers[0], self.volume)


def read_sources(volume: Volume) -> Sources:
    """Read the headers of the source files, without pixels.

    Raises Stumbled when a file cannot be read any more; Misplaced when the files are not the volume's slices; Unfit
    when these are not of one patient, study, series and frame of reference.
    """
    with unperturbed():
        headers = tuple(_headers(volume))
        _require_same_slices(volume, headers)
        _require_one_of_each(headers)
        identity = _identity(headers[0])
        request = _asked(headers[0])
    return Sources(volume, headers, identity, request)


def read_first(volume: Volume) -> Sources:
    """The header of the first source file alone: for results that say nothing of places.

    Raises Stumbled when the file cannot be read any more.
    """
    with unperturbed():
        header = _header(volume.paths[0], _FIRST_TAGS)
        return Sources(volume, (header,), _identity(header), _asked(header))


@contextmanager
def unperturbed() -> Iterator[None]:
    """pydicom warns of each imperfect value that it reads; sources may be imperfect, and warnings would quote them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom(\.|$)")
        yield


def _headers(volume: Volume) -> Iterator[Dataset]:
    """A header for each slice: of a frame that of its instance, with what the functional groups say of its place."""
    if len(volume.paths) != len(volume.sources):
        raise Misplaced(f"{len(volume.sources)} instances, {len(volume.paths)} files")
    whole: dict[str, Dataset] = {}
    for path, (_, number) in zip(volume.paths, volume.sources, strict=True):
        tags = _OTHER_TAGS if whole else _FIRST_TAGS
        if not number:
            whole[""] = _header(path, tags)
            yield whole[""]
            continue
        if path not in whole:
            whole[path] = _header(path, [*tags, *_GROUPS])
            whole[path].decode()
        yield _frame_header(whole[path], number)


def _frame_header(header: Dataset, number: int) -> Dataset:
    found = Dataset()
    for element in header:
        if element.tag not in _GROUPS:
            found.add(element)
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    own = each[number - 1] if number <= len(each) else Dataset()
    for keyword, group in _PLACES.items():
        item = (own.get(group) or shared[0].get(group) or [Dataset()])[0]
        if keyword in item:
            found.add(item[keyword])
    return found


def _header(path: str, tags: list[BaseTag]) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
    except (OSError, InvalidDicomError) as error:
        raise Stumbled(f"a source slice cannot be read again ({type(error).__name__})") from None


def _require_same_slices(volume: Volume, headers: tuple[Dataset, ...]) -> None:
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
            raise Unfit(f"{keyword} differs between the source slices ({len(values)} values)")


def _identity(header: Dataset) -> Dataset:
    header.decode()  # text of any character set, in nested items too, becomes Unicode here
    identity = _carried(header, IDENTITY)
    for keyword in REQUIRED:
        if keyword not in identity:
            setattr(identity, keyword, "")
    return identity


def _asked(header: Dataset) -> Dataset:
    """How the order calls it; what is there and empty says nothing, and must not be (PS3.3 10.6)."""
    found = _carried(header, REQUEST)
    items = found.get("RequestAttributesSequence", [])
    for item in items:
        for keyword in ("RequestedProcedureID", "ScheduledProcedureStepID", "StudyInstanceUID"):
            if keyword in item and not item[keyword].value:
                del item[keyword]
    if items and not any(len(item) for item in items):
        del found.RequestAttributesSequence
    return found


def _carried(header: Dataset, keywords: Iterable[str]) -> Dataset:
    found = Dataset()
    for keyword in keywords:
        if keyword in header:
            found.add(header[keyword])
    found.walk(_plain)
    return found


def _plain(_: Dataset, element: DataElement) -> None:
    """Sequences get defined lengths, like all that results hold, and text the VR that the dictionary says. GB 2312's
    escape sequences (ISO 2022 IR 58) survive the library's decoder; UTF-8 knows none (PS3.5 6.1.2.5)."""
    if element.VR in _TEXT and element.keyword and (known := dictionary_VR(element.tag)) in _TEXT:
        element.VR = known
    if element.VR == "SQ":
        element.is_undefined_length = False
        for item in element.value:
            item.is_undefined_length_sequence_item = False
    elif isinstance(element.value, str | PersonName) and "\x1b" in str(element.value):
        element.value = _ESCAPE.sub("", str(element.value))


def _standin(header: Dataset, first: Dataset, volume: Volume) -> Dataset:
    """A source slice as the builder wants it: no patient, one orientation for all (headers differ in the last digit),
    and a thickness, which is the distance between slices where the header has none."""
    standin = Dataset()
    for keyword in _COPIED:
        if keyword in header:
            standin.add(header[keyword])
    for keyword in REQUIRED:
        setattr(standin, keyword, "")
    if "ImageOrientationPatient" in first:
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
