"""The frames of a stored instance: what the functional groups of a multi-frame instance say of each (PS3.3 C.7.6.16),
and what tells the phases of single-frame series apart."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from overread.domain.candidates import Words
from overread.domain.errors import OverreadError, Stumbled, Unfit
from overread.domain.frame import Frame
from overread.domain.study import Instance
from overread.spool.elements import PIXEL_DATA, PIXEL_TAGS
from overread.spool.header import Header
from overread.spool.pixels import Opened, opened

ENHANCED_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
KEYWORDS = (
    *ENHANCED_GROUPS,
    *("EchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier", "TriggerTime", "AcquisitionTime"),
    *("AcquisitionDateTime", "ContentTime", "ImagerPixelSpacing", "FrameTime", "FrameTimeVector", "CineRate"),
    *("ImageType", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel"),
)
WORDS = ("ProtocolName", "ScanningSequence", "SequenceName", "ContrastBolusAgent")
PIECE_BYTES = 1 << 20


class SpoolFrames:
    """The ``domain.candidates.FrameReader`` of a spool; ``absolute`` leads from an instance's path to its file."""

    def __init__(self, absolute: Callable[[str], Path]) -> None:
        self._absolute = absolute

    def frames(self, instance: Instance) -> Sequence[Frame]:
        """All frames of an instance.

        Raises Unfit when its functional groups cannot be read or are not one for each frame; Stumbled when its file is
        gone.
        """
        with _readable(), opened(self._absolute(instance.path), KEYWORDS) as file:
            if instance.number_of_frames <= 1 and ENHANCED_GROUPS[1] not in file.header:
                return (_single(instance, file.header),)
            return _enhanced(instance, file.header)

    def picture(self, frame: Frame) -> bytes:
        """A digest of the frame's pixels as they are stored; of compressed ones, of all and this one's number."""
        with _readable(), opened(self._absolute(frame.path), KEYWORDS) as file:
            return _digest(file, frame.frame_number)


    def words(self, instance: Instance) -> Words:
        """How an instance is described. Contrast counts as given when the header names the agent."""
        with _readable(), opened(self._absolute(instance.path), WORDS) as file:
            texts = {keyword: " ".join(file.header.texts(keyword)) for keyword in WORDS}
        return Words(
            f"{instance.series_description} {texts['ProtocolName']}".strip(),
            f"{texts['ScanningSequence']} {texts['SequenceName']}".strip(),
            texts["ContrastBolusAgent"].strip().upper() not in ("", "NO", "NONE"),
        )


class _readable:
    """Turns what a damaged or vanished file raises into this room's errors."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise Stumbled(f"a slice is gone from the spool ({type(error).__name__})") from error
        if isinstance(error, OverreadError) and not isinstance(error, Unfit):
            raise Unfit(f"an image cannot be read: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, OverreadError):
            # The edge to pydicom, which raises whatever it likes on broken sequences.
            raise Unfit(f"an image cannot be read ({type(error).__name__})") from error


def _single(instance: Instance, header: Header) -> Frame:
    echo = header.real("EchoTime")
    return Frame.of(
        instance,
        frame_type="/".join(header.texts("ImageType")[2:]),
        echo_time=echo if echo is not None else header.real("EchoNumbers"),
        b_value=header.real("DiffusionBValue"),
        temporal_position=header.integer("TemporalPositionIdentifier"),
        trigger_time=header.real("TriggerTime"),
        acquired=header.text("AcquisitionDateTime") or header.text("AcquisitionTime"),
        content_time=header.text("ContentTime"),
        imager_pixel_spacing=header.reals("ImagerPixelSpacing"),
    )


def _enhanced(instance: Instance, header: Header) -> tuple[Frame, ...]:
    count = instance.number_of_frames
    (shared,) = list(header.items(ENHANCED_GROUPS[0]))[:1] or [Dataset()]
    each: Sequence[Dataset] = list(header.items(ENHANCED_GROUPS[1]))
    if each and len(each) != count:
        raise Unfit(f"it has {count} frames, and functional groups for {len(each)}")
    times = _times(header, count)
    return tuple(
        _frame(instance, _Groups(each[k] if each else Dataset(), shared), number=k + 1, time=times[k])
        for k in range(count)
    )


def _frame(instance: Instance, groups: _Groups, *, number: int, time: float | None) -> Frame:
    content, measures = groups["FrameContentSequence"], groups["PixelMeasuresSequence"]
    acquisition = _whole(content.get("FrameAcquisitionNumber"))
    return Frame.of(
        instance,
        frame_number=number,
        position=groups.reals("PlanePositionSequence", "ImagePositionPatient") or instance.position,
        orientation=groups.reals("PlaneOrientationSequence", "ImageOrientationPatient") or instance.orientation,
        pixel_spacing=_reals(measures.get("PixelSpacing")) or instance.pixel_spacing,
        slice_thickness=_real(measures.get("SliceThickness")) or instance.slice_thickness,
        acquisition_number=acquisition if acquisition is not None else instance.acquisition_number,
        time=time if time is not None else _clock(content.get("FrameReferenceDateTime")),
        **_phase(groups, content),
    )


def _phase(groups: _Groups, content: Dataset) -> dict[str, Any]:
    """What else may differ between the frames of one position."""
    types = groups["MRImageFrameTypeSequence"] or groups["CTImageFrameTypeSequence"] or groups["PETFrameTypeSequence"]
    diffusion, values = groups["MRDiffusionSequence"], groups["PixelValueTransformationSequence"]
    gradient = (diffusion.get("DiffusionGradientDirectionSequence") or [Dataset()])[0]
    slope, intercept = _real(values.get("RescaleSlope")), _real(values.get("RescaleIntercept"))
    return {
        "stack_id": str(content.get("StackID") or ""),
        "temporal_position": _whole(content.get("TemporalPositionIndex")),
        "frame_type": "/".join(map(str, (*(types.get("FrameType") or ())[2:], types.get("ComplexImageComponent", "")))),
        "echo_time": _real(groups["MREchoSequence"].get("EffectiveEchoTime")),
        "b_value": _real(diffusion.get("DiffusionBValue")),
        "gradient": "/".join(f"{v:.4f}" for v in _reals(gradient.get("DiffusionGradientOrientation"))),
        "trigger_time": _real(groups["CardiacSynchronizationSequence"].get("NominalCardiacTriggerDelayTime")),
        "acquired": str(content.get("FrameAcquisitionDateTime") or ""),
        "rescale": None if slope is None and intercept is None else (1.0 if slope is None else slope, intercept or 0.0),
    }


class _Groups:
    """One frame's functional groups: its own, else the shared one, else empty."""

    def __init__(self, own: Dataset, shared: Dataset) -> None:
        self._own, self._shared = own, shared

    def __getitem__(self, sequence: str) -> Dataset:
        for groups in (self._own, self._shared):
            items = groups.get(sequence)
            if items:
                item: Dataset = items[0]
                return item
        return Dataset()

    def reals(self, sequence: str, keyword: str) -> tuple[float, ...]:
        """All numbers of one attribute."""
        return _reals(self[sequence].get(keyword))


def _times(header: Header, count: int) -> list[float | None]:
    """When each frame was, in ms from the first (PS3.3 C.7.6.5)."""
    vector, step = header.reals("FrameTimeVector"), header.real("FrameTime")
    if len(vector) == count:
        return [t - vector[0] for t in accumulate(vector)]
    rate = header.real("CineRate")
    step = step or (1000.0 / rate if rate and rate > 0 else None)
    return [k * step if step else None for k in range(count)]


def _clock(text: Any) -> float | None:
    """Milliseconds into the month of a DICOM date and time; only differences are asked for."""
    raw = str(text or "")
    try:
        days, hours, minutes = int(raw[6:8]), int(raw[8:10]), int(raw[10:12])
        seconds = float(raw[12:].split("+", maxsplit=1)[0].split("-", maxsplit=1)[0])
    except ValueError:
        return None
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000.0


def _real(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _reals(value: Any) -> tuple[float, ...]:
    numbers = [_real(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    return tuple(n for n in numbers if n is not None) if None not in numbers else ()


def _whole(value: Any) -> int | None:
    number = _real(value)
    return int(number) if number is not None and number == int(number) else None


def _digest(file: Opened, number: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tag, place in file.pixels.items():
        offset, length = place.offset, place.length
        if number and tag == PIXEL_DATA and not place.encapsulated:
            length = _frame_bytes(file.header)
            offset += (number - 1) * length
        digest.update(PIXEL_TAGS[tag].encode())
        for piece in _pieces(file, offset, length):
            digest.update(piece)
    if number and any(p.encapsulated for p in file.pixels.values()):
        digest.update(str(number).encode())
    return digest.digest()


def _frame_bytes(header: Header) -> int:
    rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
    return rows * columns * (header.integer("SamplesPerPixel") or 1) * (header.integer("BitsAllocated") or 0) // 8


def _pieces(file: Opened, offset: int, length: int) -> Iterator[bytes]:
    for at in range(offset, offset + length, PIECE_BYTES):
        yield file.read_at(at, min(PIECE_BYTES, offset + length - at))
