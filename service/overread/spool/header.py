"""Reading the few attributes that choosing and stacking need, without ever decoding a pixel."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from overread.domain.errors import Refused
from overread.domain.study import Instance

KEYWORDS = [
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "SeriesDescription",
    "BodyPartExamined",
    "Manufacturer",
    "ManufacturerModelName",
    "FrameOfReferenceUID",
    "AcquisitionNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "GantryDetectorTilt",
    "ContributingEquipmentSequence",
]
TAGS = [Tag(keyword) for keyword in KEYWORDS]
LAST_HEADER_GROUP = 0x0028
INFLATE_LIMIT_BYTES = 1 << 20


def read_instance(data: bytes | memoryview, transfer_syntax_uid: str) -> Instance:
    """Read the header of an encoded data set (PS3.5 Section 7) without its pixels.

    Raises Refused, naming the attribute, when it cannot be read or does not say which instance it is.
    """
    syntax = UID(transfer_syntax_uid)
    try:
        stream = BytesIO(_inflated(data) if syntax == DeflatedExplicitVRLittleEndian else data)
        return _instance(_parse(stream, syntax), transfer_syntax_uid)
    except Refused:
        raise
    except Exception as error:
        # The edge to whatever a stranger sends: pydicom raises a dozen kinds of errors on broken data, RecursionError
        # among them, and none may reach the network thread.
        raise Refused(f"the data set cannot be read ({type(error).__name__})") from error


def read_file(path: Path) -> Instance:
    """Read the header of a Part 10 file in the spool; raises Refused when it cannot be read."""
    try:
        with path.open("rb") as file:
            read_preamble(file, force=False)
            meta = read_file_meta_info(path)
            syntax = UID(str(meta.TransferSyntaxUID))
            file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
            stream = BytesIO(_inflated(file.read())) if syntax == DeflatedExplicitVRLittleEndian else file
            instance = _instance(_parse(stream, syntax), str(syntax))
    except Refused:
        raise
    except Exception as error:  # the same edge: the file may be anything
        raise Refused(f"{path.name} is no readable DICOM file ({type(error).__name__})") from error
    return replace(instance, calling_ae=str(meta.get("SourceApplicationEntityTitle", "")))


def _parse(stream: BinaryIO, syntax: UID) -> Dataset:
    _require_syntax(stream, syntax)

    def past_header(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag.group) > LAST_HEADER_GROUP

    return read_dataset(
        stream,
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=past_header,
        specific_tags=TAGS,
        at_top_level=True,
    )


def _require_syntax(stream: BinaryIO, syntax: UID) -> None:
    # pydicom reads the other encoding with a warning; nobody after us would.
    start = stream.tell()
    vr = stream.read(6)[4:]
    stream.seek(start)
    if vr and all(0x41 <= byte <= 0x5A for byte in vr) == syntax.is_implicit_VR:
        raise Refused(f"the data set is not encoded as its transfer syntax says ({syntax.name})")


def _inflated(data: bytes | memoryview) -> bytes:
    # Enough for any header; a bomb is never inflated further.
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, INFLATE_LIMIT_BYTES)


def _instance(header: Dataset, transfer_syntax_uid: str) -> Instance:
    return Instance(
        sop_instance_uid=_uid(header, "SOPInstanceUID"),
        sop_class_uid=_uid(header, "SOPClassUID"),
        series_uid=_uid(header, "SeriesInstanceUID"),
        study_uid=_uid(header, "StudyInstanceUID"),
        transfer_syntax_uid=transfer_syntax_uid,
        modality=_text(header, "Modality"),
        image_type=tuple(_clean(v) for v in _list(header, "ImageType")),
        series_number=_number(header, "SeriesNumber", int),
        instance_number=_number(header, "InstanceNumber", int),
        series_description=_text(header, "SeriesDescription"),
        body_part=_text(header, "BodyPartExamined"),
        manufacturer=_text(header, "Manufacturer"),
        model_name=_text(header, "ManufacturerModelName"),
        frame_of_reference_uid=_text(header, "FrameOfReferenceUID"),
        acquisition_number=_number(header, "AcquisitionNumber", int),
        rows=_number(header, "Rows", int),
        columns=_number(header, "Columns", int),
        number_of_frames=_number(header, "NumberOfFrames", int) or 1,
        samples_per_pixel=_number(header, "SamplesPerPixel", int) or 1,
        position=_numbers(header, "ImagePositionPatient"),
        orientation=_numbers(header, "ImageOrientationPatient"),
        pixel_spacing=_numbers(header, "PixelSpacing"),
        slice_thickness=_number(header, "SliceThickness", float),
        gantry_tilt=_number(header, "GantryDetectorTilt", float),
        equipment_purposes=_purposes(header),
    )


def _uid(header: Dataset, keyword: str) -> str:
    value = _text(header, keyword)
    if not value or len(value) > 64 or not set(value) <= set("0123456789."):
        raise Refused(f"{keyword} is {'empty' if not value else 'not a valid UID'} (PS3.5 Section 9.1)")
    return value


def _list(header: Dataset, keyword: str) -> Sequence[Any]:
    value = header.get(keyword)
    if value is None or value == "":
        return ()
    return value if not isinstance(value, str | bytes) and hasattr(value, "__iter__") else (value,)


def _text(header: Dataset, keyword: str) -> str:
    values = _list(header, keyword)
    return _clean(values[0]) if len(values) else ""


def _clean(value: object) -> str:
    # A NUL or half a character would be refused by a database later, when the sender has gone.
    return "".join(c for c in str(value) if c.isprintable()).strip()


def _number(header: Dataset, keyword: str, kind: type[Any]) -> Any:
    try:
        value = kind(_list(header, keyword)[0])
    except (IndexError, OverflowError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in _list(header, keyword))
    except (OverflowError, TypeError, ValueError):
        return ()
    return values if all(map(math.isfinite, values)) else ()


def _purposes(header: Dataset) -> tuple[str, ...]:
    found = []
    for item in header.get("ContributingEquipmentSequence") or ():
        for purpose in item.get("PurposeOfReferenceCodeSequence") or ():
            found.append(_clean(purpose.get("CodeValue", "")))
    return tuple(found)


# What strangers send is read as it is; what overread writes is validated where it is written.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
