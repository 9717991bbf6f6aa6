"""The summary as an Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from PIL import Image
from pydicom.dataset import Dataset

from overread.domain.codes import Code
from overread.domain.errors import Misplaced
from overread.domain.result import Result
from overread.encode import gate, seal, shell
from overread.encode.capture import pictures
from overread.encode.codes import coded
from overread.encode.page import page
from overread.encode.reread import Reread
from overread.encode.sources import Sources, read_sources
from overread.ports import Read

TITLE = Code("18748-4", "LN", "Diagnostic imaging report")
DOTS_PER_INCH = 150


class DocumentEncoder:
    """Makes an Encapsulated PDF Storage instance (1.2.840.10008.5.1.4.1.1.104.1)."""

    kind = "pdf"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.104.1"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``pdf.dcm``. Raises Misplaced, and leaves the file, when another document reads back."""
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        drawn = pictures(read, sources)
        header = seal.header(read, sources, self.kind, self.kind)
        made = shell.shell(sources, self.sop_class_uid, "DOC", header)
        made.ConversionType, made.BurnedInAnnotation = "WSD", shell.burned_in(sources)
        made.AcquisitionDateTime, made.DocumentTitle = "", f"{read.card.title}: AI result, not a diagnosis"[:1024]
        made.ConceptNameCodeSequence = [coded(TITLE)]
        made.MIMETypeOfEncapsulatedDocument = "application/pdf"
        images = shell.source_images([sources.references[one.k] for one in drawn])
        for item in images:
            item.pop("ReferencedFrameNumber", None)
        made.SourceInstanceSequence = images
        data = _pdf(page(read, drawn), read)
        made.EncapsulatedDocument = data + bytes(len(data) % 2)
        made.EncapsulatedDocumentLength = len(data)
        return [_sealed(made, read, sources, folder, data)]


def _sealed(made: Dataset, read: Read, sources: Sources, folder: Path, data: bytes) -> Result:
    seal.seal(made, read, sources)
    result = seal.save(made, folder, DocumentEncoder.kind, DocumentEncoder.kind, provenance=str(read.provenance))
    gate.pass_object(folder / result.path, read, sources, lambda found: _check(found, data))
    return result


def _check(found: Reread, data: bytes) -> None:
    told = bytes(found.header.EncapsulatedDocument)[: int(found.header.EncapsulatedDocumentLength)]
    if told != data or not data.startswith(b"%PDF-"):
        raise Misplaced("the document is not what was written")


def _pdf(picture: Image.Image, read: Read) -> bytes:
    """One page, with the time of the reading for its own, so that it is the same each time."""
    made_at: time.struct_time = datetime.fromisoformat(read.made_at).utctimetuple()
    out = io.BytesIO()
    picture.save(
        out,
        "PDF",
        resolution=DOTS_PER_INCH,
        title="AI result, not a diagnosis",
        producer="overread",
        creationDate=made_at,
        modDate=made_at,
    )
    return out.getvalue()
