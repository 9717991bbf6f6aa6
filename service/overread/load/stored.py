"""Stored values → values in the modality's unit, on one plane, in place where that can be done.

    stored bits ─▶ the bits that count (High Bit, Bits Stored; overlays in the others are masked) ─▶ darkest first
    (MONOCHROME1 of projections is inverted) ─▶ padding ─▶ slope and intercept of this slice
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import Unfit
from overread.domain.frame import Frame
from overread.domain.study import Instance
from overread.spool.header import Header

LOWEST_HU = -1024
INT16 = np.iinfo(np.int16)
# Their values are quantities, whatever a display is told to show bright.
QUANTITIES = frozenset({"CT", "MR", "PT", "NM"})
KEYWORDS = frozenset((
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "Units"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence"),
))


@dataclass(frozen=True)
class Layout:
    """How the pixels of one file are stored (PS3.3 C.7.6.3) and rescaled (C.11.1).

    ``padding`` is the range of stored values that stand for no image, or None.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    little: bool
    photometric: str
    modality: str
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    unit: str

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of one stored sample."""
        sign = "i" if self.signed else "u"
        return np.dtype(f"{'<' if self.little else '>'}{sign}{self.allocated // 8}")

    @cached_property
    def grey(self) -> bool:
        """Whether a sample is a brightness, in whole bytes."""
        return self.samples == 1 and self.photometric.startswith("MONOCHROME") and self.allocated in (8, 16, 32)

    @property
    def inverted(self) -> bool:
        """Whether bright is stored low, in an image whose values mean nothing but brightness."""
        return self.photometric == "MONOCHROME1" and self.modality not in QUANTITIES

    @cached_property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest value that the stored bits can hold."""
        if self.signed:
            return -(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1
        return 0, (1 << self.stored) - 1


def layout_of(header: Header, modality: str) -> Layout:
    """Raises Unfit when the values cannot be used as they are."""
    if "ModalityLUTSequence" in header:
        raise Unfit("its values go through a table (Modality LUT Sequence) instead of a slope and an intercept")
    allocated = header.integer("BitsAllocated") or 0
    stored = header.integer("BitsStored") or allocated
    stored = stored if 0 < stored <= allocated else allocated
    high_bit, signed = header.integer("HighBit"), header.integer("PixelRepresentation") == 1
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    return Layout(
        rows=header.integer("Rows") or 0,
        columns=header.integer("Columns") or 0,
        samples=header.integer("SamplesPerPixel") or 1,
        frames=header.integer("NumberOfFrames") or 1,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit if high_bit is not None and stored - 1 <= high_bit < allocated else stored - 1,
        signed=signed,
        little=header.little,
        photometric=header.text("PhotometricInterpretation"),
        modality=modality,
        slope=slope or 1.0,
        intercept=intercept,
        padding=_padding(header, max(stored, 1), signed),
        unit="HU" if modality == "CT" else header.text("Units") if modality == "PT" else "",
    )


def rescaled(
    stored: NDArray[Any], layout: Layout, frame: Instance, out: NDArray[np.int16]
) -> NDArray[np.float32] | None:
    """One plane of values, from ``stored`` (rows, columns) of any native integer type, which may be ``out`` itself.

    Fills ``out`` and returns None when every value is a whole number of sixteen bits; else the plane as float32.
    """
    slope, intercept = _rescale(layout, frame)
    inverted = layout.inverted
    outside = _outside(stored, layout, slope, intercept)
    if inverted:
        low, high = layout.limits
        stored = (low + high) - stored.astype(np.int64)
    if slope == 1.0 and intercept == int(intercept) and _fits(stored, layout, int(intercept)):
        _shifted(stored, int(intercept), layout.modality, out)
        if outside is not None:
            out[outside] = LOWEST_HU if layout.modality == "CT" else _lowest(out, outside)
        return None
    plane = stored.astype(np.float32)
    if slope != 1.0:
        plane *= np.float32(slope)
    plane += np.float32(intercept)
    if layout.modality == "CT":
        np.maximum(plane, np.float32(LOWEST_HU), out=plane)
    if outside is not None:
        plane[outside] = LOWEST_HU if layout.modality == "CT" else _lowest(plane, outside)
    return plane


def meaningful(stored: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """``stored`` without the bits that do not belong to the image, such as overlays in the bits above; in place."""
    spare, below = layout.allocated - layout.stored, layout.high_bit + 1 - layout.stored
    if not spare:
        return stored
    if layout.signed:
        # To the top and back again: what is above is lost, and the sign comes along.
        np.left_shift(stored, spare - below, out=stored)
        np.right_shift(stored, spare, out=stored)
        return stored
    if below:
        np.right_shift(stored, below, out=stored)
    most = (1 << layout.stored) - 1
    if stored.max() > most:  # looking costs a third of masking
        np.bitwise_and(stored, stored.dtype.type(most), out=stored)
    return stored


def _rescale(layout: Layout, frame: Instance) -> tuple[float, float]:
    own = frame.rescale if isinstance(frame, Frame) else None
    slope, intercept = own or (layout.slope, layout.intercept)
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise Unfit("RescaleSlope or RescaleIntercept is no finite number")
    return slope or 1.0, intercept


def _fits(stored: NDArray[Any], layout: Layout, intercept: int) -> bool:
    low, high = layout.limits
    if layout.modality == "CT":
        low = max(low, LOWEST_HU - intercept)
    if INT16.min <= low + intercept and high + intercept <= INT16.max:
        return True
    least = max(int(stored.min()), low) if layout.modality == "CT" else int(stored.min())
    return INT16.min <= least + intercept and int(stored.max()) + intercept <= INT16.max


def _shifted(stored: NDArray[Any], intercept: int, modality: str, out: NDArray[np.int16]) -> None:
    """Nothing in a CT is less than air. It is known to fit, so arithmetic modulo 2¹⁶ gives the right answer."""
    same = stored.dtype.itemsize == 2
    if modality == "CT":
        floor, (lowest, highest) = LOWEST_HU - intercept, _held(stored.dtype)
        if floor > highest:
            out[...] = LOWEST_HU
            return
        if floor > lowest and stored.min() < floor:
            # Against a plane and not a number: NumPy compares two planes five times as fast.
            plane = _level(stored.shape, stored.dtype, floor)
            stored = np.maximum(stored, plane, out=out.view(stored.dtype) if same else None)
    if same:
        np.add(stored.view(np.int16), _wrapped(intercept), out=out)
    else:
        np.add(stored, intercept, out=out, casting="unsafe", dtype=np.int64)


def _wrapped(value: int) -> np.int16:
    """Modulo 2¹⁶."""
    return np.int16((value + 0x8000) % 0x10000 - 0x8000)


@lru_cache(maxsize=8)
def _held(dtype: np.dtype[Any]) -> tuple[int, int]:
    held = np.iinfo(dtype)
    return int(held.min), int(held.max)


@lru_cache(maxsize=8)
def _level(shape: tuple[int, ...], dtype: np.dtype[Any], value: int) -> NDArray[Any]:
    return np.full(shape, value, dtype)


def _outside(stored: NDArray[Any], layout: Layout, slope: float, intercept: float) -> NDArray[np.bool_] | None:
    """Where there is padding; None where there is none, or where it is so low that it becomes air by itself."""
    if layout.padding is None:
        return None
    low, high = layout.padding
    if layout.modality == "CT" and slope > 0 and high * slope + intercept <= LOWEST_HU:
        return None
    found: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return found if found.any() else None


def _lowest(plane: NDArray[Any], outside: NDArray[np.bool_]) -> Any:
    inside = plane[~outside]
    return inside.min() if inside.size else 0


def _padding(header: Header, stored: int, signed: bool) -> tuple[int, int] | None:
    first = header.bits("PixelPaddingValue")
    if first is None:
        return None
    last = header.bits("PixelPaddingRangeLimit")
    # Some write −2000 as 63536, and some with bits above the stored ones: what counts are the stored bits.
    top = 1 << (stored - 1)
    ends = [bits & (2 * top - 1) for bits in (first, first if last is None else last)]
    low, high = sorted(bits - 2 * top if signed and bits & top else bits for bits in ends)
    return low, high


def _number(header: Header, keyword: str, default: float) -> float:
    """One number. Two are ambiguous, and one that cannot be read is not the default."""
    if keyword not in header:
        return default
    texts = [t.strip() for t in header.texts(keyword)]
    if len(texts) > 1:
        raise Unfit(f"a slice cannot be decoded ({keyword} has {len(texts)} values)")
    try:
        value = float(texts[0]) if texts and texts[0] else default
    except ValueError:
        raise Unfit(f"{keyword} is no number") from None
    if not math.isfinite(value):
        raise Unfit("RescaleSlope or RescaleIntercept is no finite number")
    return value
