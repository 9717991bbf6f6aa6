"""A rejection note (IHE IOCM): a Key Object Selection that takes back the results that a later reading replaces.

Its title is (113001, DCM, "Rejected for Quality Reasons"): an answer on half a study is not good enough to stay beside
the one on the whole, yet nobody was endangered by it, as (113037, "Rejected for Patient Safety Reasons") would say, so
that an archive may still show it to who asks for it. Neither the worklist (113038) nor retention (113039) is the cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.codes import Code
from overread.domain.errors import Misplaced
from overread.domain.result import Result
from overread.encode import gate, identity, seal, tree
from overread.encode.codes import coded
from overread.encode.reread import Reread
from overread.encode.sources import Sources, read_sources
from overread.encode.superseded import reference, withdrawn
from overread.ports import Read

REJECTED = Code("113001", "DCM", "Rejected for Quality Reasons")
WHY = "Replaced by a later result of the same model on a more complete study"


class RejectionEncoder:
    """Makes Key Object Selection Document Storage instances (1.2.840.10008.5.1.4.1.1.88.59)."""

    kind = "rejection"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.88.59"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:
        """Write ``rejection….dcm``, one for each variant of ``earlier``; nothing when nothing is replaced.

        Raises Misplaced, and leaves the file, when it does not refer to exactly what is replaced.
        """
        if not read.superseded:
            return ()
        sources = read_sources(read.volume)
        current = {r.sop_instance_uid for r in earlier}
        made = []
        for variant in list(dict.fromkeys(r.variant for r in earlier if r.alternative)) or [""]:
            if objects := withdrawn(read, variant, current):
                made.append(_write(read, sources, objects, variant, folder))
        return made


def _write(read: Read, sources: Sources, objects: Sequence[Result], variant: str, folder: Path) -> Result:
    kind = RejectionEncoder.kind
    described = {"alternative": kind if variant else "", "variant": variant, "provenance": str(read.provenance)}
    note = _build(read, sources, objects, f"{kind} {variant}")
    result = seal.save(note, folder, seal.file_name(kind, variant), kind, **described)
    wanted = {r.sop_instance_uid for r in objects}
    gate.pass_object(folder / result.path, read, sources, lambda found: _check(found, wanted))
    return result


def _build(read: Read, sources: Sources, objects: Sequence[Result], role: str) -> Dataset:
    made_by = identity.maker(read.card)
    observer = DeviceObserverIdentifyingAttributes(
        uid=made_by.device_uid,
        name=made_by.model,
        manufacturer_name=made_by.manufacturer,
        model_name=made_by.model,
        serial_number=made_by.serial,
    )
    references = [_with_patient(reference(r), sources) for r in objects]
    content = KeyObjectSelection(
        coded(REJECTED),
        references,
        observer_device_context=ObserverContext(codes.DCM.Device, observer),
        description=WHY,
    )
    note = KeyObjectSelectionDocument(
        evidence=references, content=content, **seal.header(read, sources, "rejection", role)
    )
    seal.seal(note, read, sources)
    return note


def _with_patient(dataset: Dataset, sources: Sources) -> Dataset:
    """The builder takes patient and study from what is referred to; they are put in verbatim afterwards."""
    for element in sources.standin(0):
        if element.tag not in dataset and element.keyword not in ("Rows", "Columns"):
            dataset.add(element)
    return dataset


def _check(found: Reread, wanted: set[str]) -> None:
    items = tree.content(found.content, 0, len(found.content))
    named = {item.named.sop_instance_uid for item in items if item.named}
    evidence = set(tree.references(found.evidence))
    if named != wanted or evidence != wanted:
        raise Misplaced("the rejection note does not name exactly what is replaced")
