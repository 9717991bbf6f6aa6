"""What suits the viewers behind a destination: which results, and how segmentations are written for them.

    basic    any archive, any viewer: binary segmentations, which all of them take, a report that serves people and
             machines, and pictures for who shows neither
    ohif     binary: a label map shows a row "Background" and other colours there; a report in which every group has an
             outline, because one without turns the viewport black
    slicer   3D Slicer, MITK and what else reads by dcmqi: a label map loads many times faster; never JPEG 2000; the
             complete report, whose numbers they read by segment
    weasis   from 4.7 on a label map; binary segmentations of more than 400 frames are not shown by some versions; lists
             key objects, shows presentation states and structure sets where they are asked for

Of several ways the destination's presentation contexts decide: it gets the first that it accepts, binary at the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from overread.domain.variant import COMPRESSIONS, FLOOR, METHODS, Variant

COMPRESSION = ("none", "deflate", *COMPRESSIONS)
EMPTY_FRAMES = ("omit", "keep")

# Every kind of result that a destination may be given; those of other distributions come on top.
RESULTS = {
    "seg": "segmentations",
    "sr": "a report that serves both viewers and machines",
    "sr-viewer": "a report in which every group has an outline",
    "sr-data": "the complete report: volumes, classes, image library",
    "sc": "secondary captures: a summary, and the slices that matter with outlines",
    "pdf": "the summary as a document",
    "ko": "key objects: the slices that matter",
    "map": "parametric maps: probabilities, saliency",
    "image": "derived images",
    "gsps": "outlines as presentation states",
    "rtstruct": "outlines as a structure set",
    "unfit": "a report on each study that could not be analysed",
}


@dataclass(frozen=True)
class Profile:
    """One row of the capability table: kinds of results, methods of segmentations in the order of liking, whether
    frames are compressed, and whether frames without anything are kept."""

    results: tuple[str, ...] = ("seg", "sr", "sc")
    segmentation: tuple[str, ...] = (FLOOR,)
    compression: str = "deflate"
    empty_frames: str = "omit"


PROFILES: dict[str, Profile] = {
    "basic": Profile(),
    "ohif": Profile(results=("seg", "sr-viewer")),
    "slicer": Profile(results=("seg", "sr-data"), segmentation=("labelmap", FLOOR)),
    "weasis": Profile(results=("seg", "sr", "sc", "ko"), segmentation=("labelmap", FLOOR)),
}


def variants(profile: Profile) -> tuple[str, ...]:
    """The names of the variants that a destination of ``profile`` wants, the most wanted first.

    A compression that a method does not know (RLE of single bits) leaves that method as it is; binary, without a
    compression, stands at the end.
    """
    full = profile.empty_frames == "keep"
    squeezed = profile.compression if profile.compression in COMPRESSIONS else ""
    wanted = [_variant(method, squeezed, full) for method in profile.segmentation]
    return tuple(dict.fromkeys([*wanted, Variant(FLOOR, "", full).name]))


def _variant(method: str, compression: str, full: bool) -> str:
    if method == FLOOR and compression == "rle":
        compression = ""
    return Variant(method, compression, full).name


__all__ = ["COMPRESSION", "EMPTY_FRAMES", "METHODS", "PROFILES", "RESULTS", "Profile", "variants"]
