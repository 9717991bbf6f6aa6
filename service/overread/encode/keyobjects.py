"""The slices that matter as a Key Object Selection (TID 2010): viewers list them, archives keep them at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.codes import Code
from overread.domain.errors import Misplaced
from overread.domain.result import Result
from overread.encode import content, gate, seal, tree
from overread.encode.keyslices import key_slices
from overread.encode.report import write_report
from overread.encode.report_tree import observer
from overread.encode.reread import Reread
from overread.encode.sources import Reference, Sources, read_sources
from overread.ports import Read

DESCRIPTION = Code("113012", "DCM", "Key Object Description")


class KeyObjectEncoder:
    """Makes a Key Object Selection Document Storage instance (1.2.840.10008.5.1.4.1.1.88.59), title "Of Interest"."""

    kind = "ko"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.88.59"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``ko.dcm``; nothing when nothing was found.

        Raises Misplaced, and leaves the file, when it does not name exactly the slices that matter.
        """
        gate.require_consistent(read)
        slices = key_slices(read)
        if not slices:
            return ()
        sources = read_sources(read.volume)
        chosen = [sources.references[k] for k in slices]
        header = _header(read, sources)
        told = f"Found by {read.card.title} {read.card.version}; AI result, not a diagnosis"
        children = [*observer(read), content.text(DESCRIPTION, told)]
        children += [content.image(None, kind, uid, frame=frame) for kind, uid, frame in chosen]
        evidence = {sources.instances[0].series_uid: {uid: kind for kind, uid, _ in chosen}}
        path = folder / f"{self.kind}.dcm"
        study = sources.instances[0].study_uid
        digest = write_report(header, b"".join(children), content.evidence(study, evidence), path)
        result = seal.describe(header, path, digest, self.kind, provenance=str(read.provenance))
        gate.pass_object(path, read, sources, lambda found: _check(found, chosen))
        return [result]


def _header(read: Read, sources: Sources) -> Dataset:
    """The document without content and evidence, as highdicom builds it."""
    first = sources.standin(0)
    selection = KeyObjectSelection(codes.DCM.OfInterest, [first])
    made = KeyObjectSelectionDocument([first], selection, **seal.header(read, sources, "ko", "ko"))
    del made.ContentSequence, made.CurrentRequestedProcedureEvidenceSequence
    seal.seal(made, read, sources)
    return made


def _check(found: Reread, chosen: Sequence[Reference]) -> None:
    nodes = tree.content(found.content, 0, len(found.content))
    named = [(n.named.sop_class_uid, n.named.sop_instance_uid, n.named.frame) for n in nodes if n.named]
    if named != [tuple(c) for c in chosen]:
        raise Misplaced("the selection does not name exactly the slices that matter")
    if tree.references(found.evidence) != {c.sop_instance_uid: c.sop_class_uid for c in chosen}:
        raise Misplaced("the selection's evidence is not exactly the slices that it names")
