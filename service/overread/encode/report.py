"""Findings as structured reports: Comprehensive 3D SR, TID 1500, readable by viewers and by machines.

    sr          serves both: a Planar ROI group (TID 1410) for each segment, whose outline on the key slice viewers
                draw and which an additional Referenced Segment (121191, DCM) ties to the whole segment
    sr-viewer   for viewers that show nothing of a report in which one group has no outline: every group has one, a
                class or "nothing found" has a frame around the middle slice
    sr-data     complete: volumetric groups (TID 1411) that refer to segments and series, classes as groups (TID 1501)

Labels that were looked for and not found stand under Qualitative Evaluations: ``Absent`` for findings, ``Not
visualized`` for anatomy, which may just lie outside the images; and in one code (CID 6047) whether anything was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from highdicom.sr import Comprehensive3DSR, ContainerContentItem, ContentSequence
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.result import Result
from overread.encode import content, explicit, gate, seal
from overread.encode.layers import places
from overread.encode.part10 import Part10Writer
from overread.encode.report_tree import BOTH, DATA, VIEWER, Draft, tree
from overread.encode.sources import Sources, read_sources
from overread.encode.superseded import predecessor, reference
from overread.ports import Read

FORMS = (VIEWER, DATA, BOTH)


class ReportEncoder:
    """Makes a Comprehensive 3D SR Storage instance (1.2.840.10008.5.1.4.1.1.88.34), Explicit VR Little Endian."""

    kind = BOTH
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.88.34"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:
        """Write ``sr….dcm``: one for each variant of the segmentations among ``earlier`` that it refers to, or one
        without references.

        A report is always made. Raises Misplaced, and leaves the file, when an outline, a number or a reference does
        not read back as it should.
        """
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        listed = [r for r in earlier if r.kind in read.roots.get(self.kind, ()) and r.kind not in FORMS]
        refers = self.kind != VIEWER or any(r.alternative for r in listed)
        wanted = list(dict.fromkeys(r.variant for r in earlier if r.kind == "seg")) if refers else []
        made = []
        for variant in wanted or [""]:
            found = places(read.findings, earlier, variant) if self.kind != VIEWER else {}
            catalog = [r for r in listed if not r.alternative or r.variant == variant]
            made.append(_write(Draft(self.kind, read, sources, found, catalog), variant, folder))
        return made


class ViewerReportEncoder(ReportEncoder):
    """The same, in which every group has an outline."""

    kind = VIEWER


class DataReportEncoder(ReportEncoder):
    """The same, complete and for machines."""

    kind = DATA


def write_report(header: Dataset, children: bytes, evidence: bytes, path: Path) -> str:
    """Write ``header`` with the root's ``children`` and the ``evidence`` sequence as a Part 10 file; its SHA-256."""
    with Part10Writer(path, header.file_meta) as out:
        at = 0
        whole = explicit.sequence(content.CONTENT, children)
        for tag, data in ((content.EVIDENCE, evidence), (content.CONTENT, whole)):
            out.write(explicit.encoded(header[at:tag]) + data)
            at = tag + 1
        out.write(explicit.encoded(header[at:]))
    return out.digest


def report_header(read: Read, sources: Sources, kind: str, role: str, before: Result | None) -> Dataset:
    """A report without content and evidence, as highdicom builds it; ``before`` is the one that it replaces."""
    root = ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = ContentSequence()
    report = Comprehensive3DSR(
        evidence=[sources.standin(0)],
        content=root,
        is_complete=True,
        is_verified=False,
        previous_versions=[reference(before)] if before else None,
        **seal.header(read, sources, kind, role + (f" after {before.sop_instance_uid}" if before else "")),
    )
    if requests := seal.requests(sources):
        report.ReferencedRequestSequence = requests
    del report.ContentSequence
    report.pop("CurrentRequestedProcedureEvidenceSequence", None)
    seal.seal(report, read, sources)
    return report


def source_evidence(sources: Sources) -> dict[str, dict[str, str]]:
    """The source objects, as ``content.evidence`` wants them."""
    return {sources.instances[0].series_uid: dict(sources.objects)}


def _write(draft: Draft, variant: str, folder: Path) -> Result:
    read, sources, kind = draft.read, draft.sources, draft.form
    header = report_header(read, sources, kind, _role(draft, variant), predecessor(read, kind, variant))
    referred = source_evidence(sources)
    for result in draft.evidence.values():
        referred.setdefault(result.series_uid, {})[result.sop_instance_uid] = result.sop_class_uid
    path = folder / f"{seal.file_name(kind, variant)}.dcm"
    digest = write_report(header, tree(draft), content.evidence(sources.instances[0].study_uid, referred), path)
    described = {"alternative": kind if variant else "", "variant": variant, "provenance": str(read.provenance)}
    result = seal.describe(header, path, digest, kind, **described)
    gate.pass_report(path, draft)
    return result


def _role(draft: Draft, variant: str) -> str:
    """What is listed names the report, too: the same report with another list is another object."""
    listed = "".join(r.sop_instance_uid for r in draft.catalog)
    return f"{draft.form} {variant}" + (f" of {hashlib.sha256(listed.encode()).hexdigest()}" if listed else "")
