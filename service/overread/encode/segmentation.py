"""Masks as DICOM Segmentations: one for each layer of segments that do not overlap, in each variant that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from overread.domain.errors import Unfit
from overread.domain.result import Result
from overread.domain.variant import FLOOR, Variant
from overread.encode import gate, identity, multiframe, seal
from overread.encode.frames import Pixels
from overread.encode.layers import Layer, layers
from overread.encode.segments import describe
from overread.encode.sources import Sources, read_sources
from overread.ports import Read


class SegmentationEncoder:
    """Makes Segmentation Storage (1.2.840.10008.5.1.4.1.1.66.4) and Label Map Segmentation Storage (…66.7)."""

    kind = "seg"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.66.4"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``seg….dcm``; nothing when nothing was found, since an empty segmentation says nothing and is refused
        by viewers.

        Raises Unfit when the slices have no frame of reference; Misplaced, and leaves the file, when what was written
        does not read back as the mask on its slices.
        """
        gate.require_consistent(read)
        if not any(mask.any() for mask in read.findings.layers) or not in_space(read):
            return ()
        sources = read_sources(read.volume)
        if not sources.headers[0].get("FrameOfReferenceUID"):
            raise Unfit("the source slices have no FrameOfReferenceUID; no segmentation can be placed in their space")
        made = []
        for layer in layers(read.findings):
            for variant in variants(read):
                made.append(_write(read, sources, layer, variant, folder))
        return made


def in_space(read: Read) -> bool:
    """Whether what was read lies in patient space slice by slice: a film and a projection do not. Their outlines stand
    in the report and in the pictures."""
    return read.volume.placed and read.volume.kind != "frames"


def variants(read: Read) -> Iterator[Variant]:
    """The variants to make of a reading: those that are wanted, as far as it can give them, or the floor."""
    wanted = [Variant.of(name) for name in read.variants]
    known = set(read.findings.probabilities)
    possible = [v for v in wanted if v.method != "fractional" or known >= {s.value for s in read.findings.segments}]
    return iter(possible or [Variant(FLOOR)])


def _write(read: Read, sources: Sources, layer: Layer, variant: Variant, folder: Path) -> Result:
    role = f"{layer.alternative} {variant.name}"
    path = folder / f"{seal.file_name('seg', variant.name, layer.number)}.dcm"
    made = multiframe.build(
        sources,
        Pixels(layer, read.findings.probabilities),
        variant,
        [describe(segment, number, read) for number, segment in enumerate(layer.segments, 1)],
        content_label="SEGMENTATION",
        content_description=identity.series_description(read, "seg"),
        **seal.header(read, sources, "seg", f"seg {variant.name}", instance=role, number=layer.number),
    )
    seal.pin_dimensions(made.header, identity.uid(read.key, f"{role} dimensions"))
    seal.seal(made.header, read, sources)
    described = {"alternative": layer.alternative, "variant": variant.name, "provenance": str(read.provenance)}
    result = seal.describe(made.header, path, made.write(path), SegmentationEncoder.kind, **described)
    gate.pass_segmentation(path, read, sources, layer, variant)
    return result
