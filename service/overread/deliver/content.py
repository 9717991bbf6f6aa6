"""The data set of a result: as it goes over the wire, and compared with what a destination gives back."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, config, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from overread.domain.errors import Rejected
from overread.domain.result import Result
from overread.spool.files import dataset_start
from overread.spool.meta import file_meta

EXPLICIT, IMPLICIT, DEFLATED = map(
    str, (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
)
NATIVE_TRANSFER_SYNTAXES = (EXPLICIT, IMPLICIT)
_TRANSCODABLE = (*NATIVE_TRANSFER_SYNTAXES, DEFLATED)
_PIECE_BYTES = 1 << 20
_FAULTS = (OSError, ValueError, AttributeError, KeyError, TypeError, NotImplementedError, InvalidDicomError, zlib.error)


def transfer_syntaxes(result: Result, *, deflated: bool = True) -> list[str]:
    """Transfer syntaxes in the order of liking: the file's own, then what it can be unpacked to without a decoder.

    Without ``deflated``, a deflated file is only offered inflated.
    """
    own = result.transfer_syntax_uid
    if own not in _TRANSCODABLE:
        return [own]
    return [*([own] if deflated or own != DEFLATED else []), *(s for s in NATIVE_TRANSFER_SYNTAXES if s != own)]


@contextlib.contextmanager
def data_set(result: Result, path: Path, syntax: str) -> Iterator[tuple[BinaryIO, int]]:
    """The bytes of a result's data set in ``syntax``, and how many: those of its file, inflated, or written anew.

    Nothing but the encoding changes. Raises Rejected when the file is no longer what it was, or cannot be written so.
    """
    own = result.transfer_syntax_uid
    try:
        with path.open("rb") as file:
            file.seek(dataset_start(file))
            if syntax == own:
                yield file, os.fstat(file.fileno()).st_size - file.tell()
                return
            with tempfile.TemporaryFile() as made:
                if (own, syntax) == (DEFLATED, EXPLICIT):
                    _inflate(file, made)
                else:
                    _rewrite(path, made, implicit=syntax == IMPLICIT)
                size = made.tell()
                made.seek(0)
                yield made, size
    except _FAULTS as error:
        raise Rejected(
            f"the file of {result.sop_instance_uid} cannot be sent as {UID(syntax).name} ({type(error).__name__}); "
            "run the job again"
        ) from None


def _inflate(source: BinaryIO, target: BinaryIO) -> None:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    while piece := source.read(_PIECE_BYTES):
        while piece:
            target.write(stream.decompress(piece, _PIECE_BYTES))
            piece = stream.unconsumed_tail
    target.write(stream.flush())
    if not stream.eof:
        raise ValueError("it ends before its deflated stream does")


def _rewrite(path: Path, target: BinaryIO, *, implicit: bool) -> None:
    with config.disable_value_validation():
        target.write(encoded(dcmread(path), implicit=implicit))


def encoded(dataset: Dataset, *, implicit: bool) -> bytes:
    """A data set in Implicit or Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def part10(result: Result, path: Path, syntax: str) -> Dataset:
    """A result as a dataset whose file meta information says ``syntax``. Raises Rejected when it cannot be read."""
    try:
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    except _FAULTS as error:
        raise Rejected(
            f"the file of {result.sop_instance_uid} cannot be read ({type(error).__name__}); run the job again"
        ) from None
    return dataset


def as_dataset(content: bytes, syntax: str) -> Dataset:
    """A data set without file meta information. Raises ValueError when it cannot be read."""
    try:
        return dcmread(io.BytesIO(file_meta("1.2", "1.2", syntax, "") + content))
    except _FAULTS as error:
        raise ValueError(f"what it gave back cannot be read ({type(error).__name__})") from None


def differences(path: Path, theirs: Dataset) -> list[int]:
    """Tags of the data elements in which a result's file and what a destination gave back differ.

    Compared is the value of every element of the data set in one encoding, so that another transfer syntax of the same
    is no difference; a group length, or the way in which the length of a sequence is written, is none either.
    """
    with config.disable_value_validation():
        ours = dcmread(path)
        mine, others = _elements(ours), _elements(theirs)
    return sorted(tag for tag in mine.keys() | others.keys() if mine.get(tag) != others.get(tag))


def _elements(dataset: Dataset) -> dict[int, bytes]:
    found = {}
    for element in dataset:
        if element.tag.group in (0x0000, 0x0002) or element.tag.element == 0 or element.tag == 0xFFFCFFFC:
            continue
        _define_lengths(element)
        alone = Dataset()
        alone.add(element)
        found[int(element.tag)] = encoded(alone, implicit=True)
    return found


def _define_lengths(element: object) -> None:
    if getattr(element, "VR", "") != "SQ":
        return
    element.is_undefined_length = False  # type: ignore[attr-defined]
    for item in element.value:  # type: ignore[attr-defined]
        item.is_undefined_length_sequence_item = False
        for inner in item:
            _define_lengths(inner)
