"""Never a wrong place: what was written is read back from its file and compared with its source.

Nothing here knows how an object was built. Each object is parsed again from its bytes; its attributes are compared with
what its IOD demands, its patient and study with the source's, and, by the check of its kind, what it says with the
findings, in patient space (mm, LPS). What differs is refused: its file stays where it is, for a person to look at, and
the error names attributes and slices, never values of a patient.

A new kind of object adds one ``Check``: see ``pass_object``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from overread.domain.errors import Misplaced
from overread.domain.geometry import ORIENTATION_TOLERANCE
from overread.domain.variant import Variant
from overread.encode import gate_attributes, gate_report, gate_segmentation, gate_validator
from overread.encode.gate_segmentation import floats
from overread.encode.layers import Layer
from overread.encode.report_tree import Draft
from overread.encode.reread import Reread, reread
from overread.encode.sources import Sources, unperturbed
from overread.ports import Read

Check = Callable[[Reread], None]


def require_consistent(read: Read) -> None:
    """Raise Misplaced unless the masks lie on the volume's grid and their values are those of the segments, 1 … n."""
    layers, values = read.findings.layers, [segment.value for segment in read.findings.segments]
    for mask in layers:
        if mask.shape != read.volume.voxels.shape or mask.shape[1:] != read.volume.stack.shape[1:]:
            raise Misplaced(f"the mask is {mask.shape}, its volume {read.volume.voxels.shape}")
    if values != list(range(1, len(values) + 1)) or max(int(m.max(initial=0)) for m in layers) > len(values):
        raise Misplaced("the values of the mask are not those of its segments, numbered from 1 without gaps")


def pass_segmentation(path: Path, read: Read, sources: Sources, layer: Layer, variant: Variant) -> None:
    """Raise Misplaced unless the file holds exactly ``layer`` on the source's slices."""
    pass_object(path, read, sources, lambda found: gate_segmentation.check(found, read, sources, layer, variant))


def pass_report(path: Path, draft: Draft) -> None:
    """Raise Misplaced unless its outlines, numbers and references are those of the findings."""
    pass_object(path, draft.read, draft.sources, lambda found: gate_report.check(found, draft))


def pass_object(path: Path, read: Read, sources: Sources, check: Check, *, alike: bool = False) -> None:
    """Raise Misplaced unless the object in ``path`` is the source's, complete, valid, and passes the ``check`` of its
    kind, which raises Misplaced itself. What is ``alike`` another but for its pixels is not validated again."""
    try:
        with unperturbed(), reread(path) as found:
            _same_identity(found.header, sources)
            if read.volume.placed and read.volume.kind != "frames":
                _same_slices(read, sources)
            check(found)
            gate_attributes.check(found.header)
            if not alike:
                gate_validator.check(path)
    except Misplaced as error:
        raise Misplaced(str(error), path) from None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, InvalidDicomError) as error:
        raise Misplaced(f"{path.name} does not read back: {type(error).__name__} in its structure", path) from error


def _same_identity(result: Dataset, sources: Sources) -> None:
    for wanted in sources.identity:
        found = result.get(wanted.tag)
        if found is None or (wanted.VR == "SQ" and len(found.value) != len(wanted.value)):
            raise Misplaced(f"{wanted.keyword} of the source is not in the result")
        if wanted.VR != "SQ" and str(found.value or "") != str(wanted.value or ""):
            raise Misplaced(f"{wanted.keyword} of the result differs from the source")


def _same_slices(read: Read, sources: Sources) -> None:
    """The volume's slices lie where the headers of their files say, so that a mask on it is a mask on them."""
    affine = read.volume.affine
    step = float(np.linalg.norm(affine[:3, 0]))
    for k, header in enumerate(sources.headers):
        expected = affine[:3, 3] + k * affine[:3, 0]
        if np.linalg.norm(floats(header.ImagePositionPatient) - expected) > step / 2:
            raise Misplaced(f"slice {k + 1} of the volume does not lie at the ImagePositionPatient of its file")
    orientation = floats(sources.headers[0].ImageOrientationPatient)
    columns, rows = (affine[:3, i] / np.linalg.norm(affine[:3, i]) for i in (1, 2))
    if np.abs(orientation - np.concatenate([rows, columns])).max() > ORIENTATION_TOLERANCE:
        raise Misplaced("the volume's axes are not the ImageOrientationPatient of its files")
