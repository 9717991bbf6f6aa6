"""A Part 10 file written from start to end, deflated on the way when it is to be (PS3.5 A.5).

Segmentations are zeros for the most part. A run of zeros is deflated once and its bytes are put in wherever it is
needed; so a mask costs what it holds, not what its frames could hold.
"""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

LEVEL = 3
RUN_BYTES = 1024
_ZEROS = bytes(1 << 16)


class Part10Writer:
    """Writes the data set of ``meta``'s transfer syntax to ``path``; ``digest`` is the file's SHA-256 when closed."""

    def __init__(self, path: Path, meta: FileMetaDataset) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        deflated = meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -15, 9) if deflated else None
        self._out(bytes(128) + b"DICM" + _meta(meta))
        self._body = 0
        self.digest = ""

    def write(self, data: bytes) -> None:
        """The next bytes of the data set."""
        self._put(self._deflate.compress(data) if self._deflate else data)

    def zeros(self, count: int) -> None:
        """So many zeros."""
        runs = count - count % RUN_BYTES
        if self._deflate and runs:
            self._put(self._deflate.flush(zlib.Z_FULL_FLUSH))  # what follows refers to nothing before it
            while runs:
                run = min(runs, len(_ZEROS))
                self._put(_deflated_zeros(run))
                runs -= run
            count %= RUN_BYTES
        while count:
            self.write(_ZEROS[: min(count, len(_ZEROS))])
            count -= min(count, len(_ZEROS))

    def __enter__(self) -> Part10Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None and self._deflate:
                self._put(self._deflate.flush())
                self._put(bytes(self._body % 2))
        finally:
            self._file.close()
        self.digest = self._hash.hexdigest()

    def _put(self, data: bytes) -> None:
        self._body += len(data)
        self._out(data)

    def _out(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


@lru_cache(maxsize=128)
def _deflated_zeros(count: int) -> bytes:
    """A run of zeros as whole deflate blocks that refer to nothing outside and end on a byte."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return deflate.compress(_ZEROS[:count]) + deflate.flush(zlib.Z_FULL_FLUSH)


def _meta(meta: FileMetaDataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return bytes(buffer.getvalue())
