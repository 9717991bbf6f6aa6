"""Reading the few attributes that choosing and stacking need, without ever decoding a pixel.

The whole data set is walked over, so that what is acknowledged is complete: no element cut off, no length that lies,
and as many pixels as the header says.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from pydicom import config as pydicom_config
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.uid import UID

from overread.domain.errors import Refused
from overread.domain.study import Instance
from overread.spool.elements import (
    SEQUENCE_BYTES,
    TEXT_BYTES,
    Encoding,
    ReadAt,
    Value,
    scan,
)
from overread.spool.inflate import inflated
from overread.spool.limits import LENIENT, LIMITS, Limits
from overread.spool.pixel_rules import BIG_ENDIAN, IMPLICIT, Source, native_bytes, require_pixels

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
    "BitsAllocated",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "GantryDetectorTilt",
    "ContributingEquipmentSequence",
]
# What reading pixels and frames needs besides: looked up when a volume is made, not for everything that comes.
LATER_KEYWORDS = [
    *("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "RescaleSlope", "RescaleIntercept"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence", "Units", "ImagerPixelSpacing"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "FrameTime", "FrameTimeVector"),
    *("CineRate", "EchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier", "TriggerTime"),
    *("AcquisitionTime", "ContentTime", "AcquisitionDateTime", "ContrastBolusAgent", "ProtocolName", "SequenceName"),
    *("ScanningSequence", "ViewPosition", "ImageLaterality", "Laterality", "ConvolutionKernel"),
]
UIDS = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
TAGS = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in (*KEYWORDS, *LATER_KEYWORDS)}
WANTED = {TAGS[k]: SEQUENCE_BYTES if k.endswith("Sequence") else TEXT_BYTES for k in KEYWORDS}
PADDING = b"\0 "
ESCAPE = b"\x1b"
UID_LETTERS = b"0123456789."
DOT = ord(".")
LARGEST_INTEGER = 2**63 - 1

# Text as bytes: what a VR of text holds, and what implicit VR and UN leave open (PS3.5 Section 6.2).
TEXT_VRS = frozenset([b"", *b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UN UR UT".split()])
NUMBER_FORMATS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"UV": "Q", b"SV": "q", b"FL": "f", b"FD": "d"}
# What implicit VR leaves open, where it is not text.
BINARY = dict.fromkeys(["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"], "H")
BINARY |= dict.fromkeys(["PixelRepresentation", "PlanarConfiguration"], "H") | {"DiffusionBValue": "d"}
# SpecificCharacterSet is for these alone; all others are plain (PS3.5 Section 6.1.2.2).
TRANSLATED = {"SeriesDescription", "Manufacturer", "ManufacturerModelName"}
DELIMITERS = {ord(c) for c in "\n\r\t\f\\"}  # each returns to the first character set (PS3.5 Section 6.1.2.5.3)

DEFLATED = {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}

FILE_META = Encoding("Explicit VR Little Endian")
TRANSFER_SYNTAX, SOURCE_AE, RECEIVING_AE = 0x00020010, 0x00020016, 0x00020018
# After the preamble, the prefix and the first element, which is the length of the others.
META_MAGIC = b"DICM\x02\0\0\0UL\x04\0"
META_START = 144
NOTHING: Value = (b"", b"")


def read_header(
    read_at: ReadAt,
    size_bytes: int,
    transfer_syntax_uid: str,
    *,
    scratch: Path | None = None,
    limits: Limits = LIMITS,
    pixels_due: bool = False,
) -> Header:
    """Read the header of an encoded data set (PS3.5 Section 7), and see that all of it is there, without its pixels.

    ``read_at(offset, count)`` gives its bytes, fewer only at the end. A deflated one is inflated into a temporary file
    without a name, in ``scratch`` if given. ``pixels_due``: a header of an image without pixels has been cut off, too.
    Raises Refused, naming the attribute, when the data set cannot be read, is cut off, or does not say which instance
    it is; OSError when the disk fails.
    """
    try:
        encoding = encoding_of(transfer_syntax_uid)
        with plain(read_at, size_bytes, transfer_syntax_uid, scratch, limits) as (read_plain_at, plain_bytes):
            found = scan(read_plain_at, plain_bytes, encoding, WANTED, limits)
            header = Header(found.values, encoding, transfer_syntax_uid)
            for keyword in UIDS:
                header.uid(keyword)
            require_pixels(found.pixels, header, Source(read_plain_at, plain_bytes, encoding), limits)
            if pixels_due and not found.pixels and native_bytes(header, header.integer("NumberOfFrames") or 1):
                raise Refused("the header describes an image, and the data set ends before its pixels")
            return header
    except (ArithmeticError, LookupError, ValueError, struct.error) as error:
        # The edge to whatever a stranger sends: no error that broken data causes may reach the network thread.
        raise Refused(f"the data set cannot be read ({type(error).__name__})") from error


def read_instance(data: bytes | memoryview, transfer_syntax_uid: str) -> Instance:
    """The instance in a data set in memory; raises as ``read_header`` does."""
    view = memoryview(data)
    header = read_header(lambda offset, count: bytes(view[offset : offset + count]), len(view), transfer_syntax_uid)
    return header.instance()


def read_file(path: Path, *, scratch: Path | None = None, limits: Limits = LENIENT) -> Instance:
    """The instance in a Part 10 file in the spool; raises as ``read_header``, Refused also when it cannot be opened."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise Refused(f"{path.name} is no readable DICOM file ({type(error).__name__})") from error
    with file:
        descriptor = file.fileno()
        start, syntax, calling_ae, called_ae = file_meta(descriptor, path)
        size = max(os.fstat(descriptor).st_size - start, 0)

        def read_at(offset: int, count: int) -> bytes:
            return os.pread(descriptor, count, start + offset)

        instance = read_header(read_at, size, syntax, scratch=scratch, limits=limits).instance()
        return replace(instance, calling_ae=calling_ae, called_ae=called_ae)


def file_meta(descriptor: int, path: Path | str) -> tuple[int, str, str, str]:
    """Where the data set starts, its transfer syntax, who sent it, and to which AE (PS3.10 Section 7.1)."""
    head = os.pread(descriptor, META_START, 0)
    if len(head) < META_START or head[128:140] != META_MAGIC:
        raise Refused(f"{Path(path).name} is no readable DICOM file (no file meta information)")
    size = int.from_bytes(head[140:], "little")
    wanted = {TRANSFER_SYNTAX: 64, SOURCE_AE: TEXT_BYTES, RECEIVING_AE: TEXT_BYTES}
    found = scan(lambda at, count: os.pread(descriptor, count, META_START + at), size, FILE_META, wanted).values
    if TRANSFER_SYNTAX not in found:
        raise Refused(f"{Path(path).name} is no readable DICOM file (no transfer syntax)")
    syntax, calling_ae, called_ae = (_clean(found.get(t, NOTHING)[1].decode("latin-1")) for t in wanted)
    return META_START + size, syntax, calling_ae, called_ae


@lru_cache(maxsize=64)
def encoding_of(transfer_syntax_uid: str) -> Encoding:
    # What is still to be invented is explicit VR little endian, like all that is compressed (PS3.5 Section A.4).
    if transfer_syntax_uid != IMPLICIT and not transfer_syntax_uid.startswith(IMPLICIT + "."):
        raise Refused(f"the transfer syntax {_clean(transfer_syntax_uid)[:64]} is not one of the Standard")
    name = UID(transfer_syntax_uid).name
    return Encoding(name, transfer_syntax_uid != IMPLICIT, transfer_syntax_uid != BIG_ENDIAN)


def plain(
    read_at: ReadAt, size_bytes: int, transfer_syntax_uid: str, scratch: Path | None, limits: Limits = LIMITS
) -> AbstractContextManager[tuple[ReadAt, int]]:
    if transfer_syntax_uid in DEFLATED:
        return inflated(read_at, size_bytes, scratch, limits)
    return nullcontext((read_at, size_bytes))


class Header:
    """Values of the top level by keyword: clean, or left out where they are not what they should be."""

    def __init__(self, values: dict[int, Value], encoding: Encoding, transfer_syntax_uid: str) -> None:
        self._values = values
        self._encoding = encoding
        self.transfer_syntax_uid = transfer_syntax_uid

    def instance(self) -> Instance:
        """All of them; raises nothing once ``read_header`` has given the header."""
        return Instance(
            sop_instance_uid=self.uid("SOPInstanceUID"),
            sop_class_uid=self.uid("SOPClassUID"),
            series_uid=self.uid("SeriesInstanceUID"),
            study_uid=self.uid("StudyInstanceUID"),
            transfer_syntax_uid=self.transfer_syntax_uid,
            modality=self.text("Modality"),
            image_type=tuple(map(_clean, self.texts("ImageType"))),
            series_number=self.integer("SeriesNumber"),
            instance_number=self.integer("InstanceNumber"),
            series_description=self.text("SeriesDescription"),
            body_part=self.text("BodyPartExamined"),
            manufacturer=self.text("Manufacturer"),
            model_name=self.text("ManufacturerModelName"),
            frame_of_reference_uid=self.text("FrameOfReferenceUID"),
            acquisition_number=self.integer("AcquisitionNumber"),
            rows=self.integer("Rows"),
            columns=self.integer("Columns"),
            number_of_frames=self.integer("NumberOfFrames") or 1,
            samples_per_pixel=self.integer("SamplesPerPixel") or 1,
            position=self.reals("ImagePositionPatient"),
            orientation=self.reals("ImageOrientationPatient"),
            pixel_spacing=self.reals("PixelSpacing"),
            slice_thickness=self.real("SliceThickness"),
            gantry_tilt=self.real("GantryDetectorTilt"),
            equipment_purposes=self.purposes(),
        )

    def uid(self, keyword: str) -> str:
        """A UID; raises Refused when it is none (PS3.5 Section 9.1)."""
        vr, raw = self._get(keyword)
        raw = raw.strip(PADDING)
        if 0 < len(raw) <= 64 and vr in TEXT_VRS and not raw.translate(None, UID_LETTERS) and raw[0] != DOT:
            return raw.decode("ascii")
        value = self.text(keyword)  # the first of several, or with blanks in odd places
        if value and len(value) <= 64 and not value.encode().translate(None, UID_LETTERS) and value[0] != ".":
            return value
        raise Refused(f"{keyword} is {'not a valid UID' if raw else 'empty'} (PS3.5 Section 9.1)")

    def text(self, keyword: str) -> str:
        values = self.texts(keyword)
        return _clean(values[0]) if values else ""

    def texts(self, keyword: str) -> list[str]:
        vr, raw = self._get(keyword)
        raw = raw.strip(PADDING)
        if not raw or vr not in TEXT_VRS:
            return []
        if raw.isascii() and ESCAPE not in raw:
            text = raw.decode("ascii")
        elif keyword in TRANSLATED:
            text = _decoded(raw, _character_sets(self._get("SpecificCharacterSet")[1]))
        else:
            text = raw.decode("latin-1")
        return text.split("\\")

    def integer(self, keyword: str) -> int | None:
        vr, raw = self._get(keyword)
        if vr == b"US" and len(raw) == 2:  # as nearly all are
            return int.from_bytes(raw, "little" if self._encoding.little else "big")
        numbers = self._numbers(keyword, int, 1)
        if not numbers or numbers[0] != int(numbers[0]) or abs(numbers[0]) > LARGEST_INTEGER:
            return None
        return int(numbers[0])

    def real(self, keyword: str) -> float | None:
        numbers = self._numbers(keyword, float, 1)
        return float(numbers[0]) if numbers else None

    def reals(self, keyword: str) -> tuple[float, ...]:
        return tuple(map(float, self._numbers(keyword, float)))

    def _numbers(self, keyword: str, kind: Callable[[bytes], float], most: int = -1) -> Sequence[float]:
        """The first ``most`` numbers, all finite, or none."""
        vr, raw = self._get(keyword)
        known = vr not in (b"", b"UN")  # of an unknown VR the bytes are little endian (PS3.5 Section 6.2.2)
        code = NUMBER_FORMATS.get(vr) if known else BINARY.get(keyword)
        try:
            if code is None:
                parts = raw.strip(PADDING).split(b"\\")[: most if most > 0 else None]
                numbers: Sequence[float] = [_number(part, kind) for part in parts]
            else:
                order = "<" if self._encoding.little or not known else ">"
                numbers = [n for (n,) in struct.iter_unpack(order + code, raw)]
            return numbers if all(map(math.isfinite, numbers)) else ()
        except (OverflowError, ValueError, struct.error):
            return ()

    def purposes(self) -> tuple[str, ...]:
        """What the contributing equipment was for, as code values; none when that cannot be read."""
        try:
            items = self.items("ContributingEquipmentSequence")
            codes = (code for item in items for code in item.get("PurposeOfReferenceCodeSequence") or ())
            return tuple(_clean(code.get("CodeValue", "")) for code in codes)
        except Exception:
            # Whatever pydicom raises on broken items: an image is not worth less for who is said to have touched it.
            return ()

    def items(self, keyword: str) -> Sequence[Dataset]:
        """The items of a sequence; raises whatever pydicom raises on broken ones."""
        vr, raw = self._get(keyword)
        if not raw:
            return ()
        implicit = vr != b"SQ"
        items: Sequence[Dataset] = read_sequence(
            BytesIO(raw), implicit, implicit or self._encoding.little, len(raw), "iso8859"
        )
        return items

    def bits(self, keyword: str) -> int | None:
        """The first sixteen bits of a value, whether US or SS: implicit VR leaves that open, and many mix them up."""
        raw = self._get(keyword)[1][:2]
        return int.from_bytes(raw, "little" if self.little else "big") if len(raw) == 2 else None

    @property
    def little(self) -> bool:
        """Whether numbers, and pixels that are not compressed, are little endian."""
        return self._encoding.little

    def signature(self) -> tuple[object, ...]:
        """Equal for headers whose values are equal, byte for byte."""
        return (self.transfer_syntax_uid, *self._values.items())

    def __contains__(self, keyword: str) -> bool:
        return bool(self._get(keyword)[1])

    def _get(self, keyword: str) -> Value:
        return self._values.get(TAGS[keyword], NOTHING)


def _number(text: bytes, kind: Callable[[bytes], float]) -> float:
    try:
        return kind(text)
    except ValueError:
        return float(text.strip(PADDING))  # "3.0" where an integer should be, or a NUL between two values


def _clean(text: object) -> str:
    # A NUL or half a character would be refused by a database later, when the sender has gone.
    text = str(text)
    return (text if text.isprintable() else "".join(filter(str.isprintable, text))).strip()


@lru_cache(maxsize=64)
def _character_sets(raw: bytes) -> tuple[str, ...]:
    names = [n.strip() for n in raw.strip(PADDING).decode("latin-1").split("\\")]
    return tuple(convert_encodings(names))


def _decoded(raw: bytes, character_sets: Sequence[str]) -> str:
    if ESCAPE in raw:
        return str(decode_bytes(raw, character_sets, DELIMITERS))
    return raw.decode(character_sets[0], "replace")


# What strangers send is read as it is; what overread writes is validated where it is written.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
