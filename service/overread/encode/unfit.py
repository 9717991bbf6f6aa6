"""Why a study could not be analysed, as a report: silence would be taken for "nothing found".

A Comprehensive 3D SR (TID 1500) without measurements. Its Qualitative Evaluations say that the analysis failed, and in
words why. It needs no geometry: that is often just what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from overread.domain.codes import Code
from overread.domain.errors import Misplaced
from overread.domain.findings import Findings
from overread.domain.geometry import Stack
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.encode import content, gate, seal, tree
from overread.encode.codes import COMMENT, NOTHING_DONE, QUALITATIVE_EVALUATIONS, SUMMARY
from overread.encode.report import report_header, write_report
from overread.encode.report_tree import observer, procedure_reported
from overread.encode.reread import Reread
from overread.encode.sources import read_first
from overread.encode.superseded import predecessor
from overread.ports import Read

KIND = "unfit"
ANALYSIS_PERFORMED, FAILED = Code("111004", "DCM", "Analysis Performed"), Code("111224", "DCM", "Failed")
NOTHING = Findings(np.zeros((0, 1, 1), np.uint8), ())


def unread(instances: Sequence[Instance], first: Path) -> Volume:
    """Images that could not be analysed, as a volume without voxels or a place; ``first`` is the file of the first."""
    nowhere = Stack(tuple(instances), np.eye(4), (1.0, 1.0, 1.0), placed=False)
    return Volume(np.zeros((0, 1, 1), np.int16), nowhere, (str(first),))


def encode_unfit(read: Read, reason: str, folder: Path) -> Result:
    """Write ``unfit.dcm`` into ``folder`` and describe it; the volume of ``read`` is what ``unread`` gives.

    Raises Stumbled when the first file cannot be read any more; Misplaced, and leaves the file, when what was written
    is not the source's, or not valid, or does not give the reason.
    """
    sources, instances = read_first(read.volume), read.volume.stack.instances
    header = report_header(read, sources, KIND, KIND, predecessor(read, KIND, ""))
    series: dict[str, dict[str, str]] = {}
    for instance in instances:
        series.setdefault(instance.series_uid, {})[instance.sop_instance_uid] = instance.sop_class_uid
    path = folder / f"{KIND}.dcm"
    children = _tree(read, instances[0].modality, reason)
    digest = write_report(header, children, content.evidence(instances[0].study_uid, series), path)
    result = seal.describe(header, path, digest, KIND, provenance=str(read.provenance))
    gate.pass_object(path, read, sources, lambda found: _check(found, reason))
    return result


def _check(found: Reread, reason: str) -> None:
    if not tree.content(found.content, 0, len(found.content))[-1].children[-1].value.endswith(f": {reason}."):
        raise Misplaced("the report does not give the reason why the study could not be analysed")


def _tree(read: Read, modality: str, reason: str) -> bytes:
    text = f"Could not be analysed by {read.card.title} {read.card.version}: {reason}."
    said = [
        content.code(SUMMARY, NOTHING_DONE),
        content.code(ANALYSIS_PERFORMED, FAILED),
        content.text(COMMENT, text),
    ]
    evaluations = content.container(QUALITATIVE_EVALUATIONS, said)
    return b"".join([*observer(read), procedure_reported(modality), evaluations])
