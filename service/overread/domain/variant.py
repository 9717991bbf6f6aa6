"""The ways in which a segmentation can be written (``Result.variant``).

    binary      a frame and a bit for each segment (PS3.3 A.51): the only kind that every viewer and old archive takes
    labelmap    a frame of segment numbers for each slice (PS3.3 A.90), a SOP Class that many archives refuse
    fractional  a frame of probabilities for each segment, 0 … 255

After a hyphen may follow how frames are compressed (``rle``, ``jpeg2000``), and ``full`` when empty frames are kept.
What is not compressed is kept deflated, which every variant without a compression allows.
"""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("binary", "labelmap", "fractional")
COMPRESSIONS = ("rle", "jpeg2000")
FLOOR = "binary"


@dataclass(frozen=True)
class Variant:
    """One way to write a segmentation."""

    method: str = FLOOR
    compression: str = ""
    full: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"a segmentation can be {', '.join(METHODS)}, not {self.method!r}")
        if self.compression not in ("", *COMPRESSIONS):
            raise ValueError(f"frames can be compressed by {' or '.join(COMPRESSIONS)}, not by {self.compression!r}")
        if self.method == "binary" and self.compression == "rle":
            raise ValueError("RLE knows no frames of one bit a pixel (PS3.5 8.2.2): take labelmap-rle, or jpeg2000")

    @property
    def name(self) -> str:
        """``labelmap-rle``, ``binary-full`` …"""
        return "-".join(part for part in (self.method, self.compression, "full" if self.full else "") if part)

    @classmethod
    def of(cls, name: str) -> Variant:
        """The opposite of ``name``. Raises ValueError that says what can be."""
        method, *rest = name.split("-")
        full = rest[-1:] == ["full"]
        rest = rest[:-1] if full else rest
        if len(rest) > 1:
            raise ValueError(f"{name!r} is no way to write a segmentation: METHOD[-COMPRESSION][-full]")
        return cls(method, rest[0] if rest else "", full)
