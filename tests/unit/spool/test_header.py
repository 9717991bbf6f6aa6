"""The header reader meets whatever a stranger sends: it answers with an instance or Refused, quickly, and no pixel."""

from __future__ import annotations

import struct
import tarfile
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from overread.domain.errors import Refused
from overread.domain.study import Instance
from overread.simulate.phantom import ChestPhantom
from overread.spool.meta import file_meta
from overread.spool.header import read_file, read_instance

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def encode(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    write_dataset(buffer, dataset)
    data = buffer.getvalue()
    if syntax != DeflatedExplicitVRLittleEndian:
        return data
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """One short explicit VR little endian element."""
    return struct.pack("<HH", group, number) + vr + struct.pack("<H", len(value)) + value


def minimal(**values: bytes) -> bytes:
    """An instance of elements as raw bytes; ``values`` adds or exchanges some by their VR and tag, ``CS00080060``."""
    raw = {
        "UI00080016": b"1.2.840.10008.5.1.4.1.1.2\0",
        "UI00080018": b"1.2.3\0",
        "UI0020000D": b"1.2\0",
        "UI0020000E": b"1.2.4\0",
    }
    raw.update(values)
    ordered = sorted(raw.items(), key=lambda item: item[0][2:])
    return b"".join(element(int(k[2:6], 16), int(k[6:], 16), k[:2].encode(), v) for k, v in ordered)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_every_attribute_that_choosing_and_stacking_need_is_read(tiny_ct: list[Path], syntax: str) -> None:
    dataset = pydicom.dcmread(tiny_ct[3])
    instance = read_instance(encode(dataset, syntax), syntax)
    assert instance.sop_instance_uid == dataset.SOPInstanceUID
    assert (instance.study_uid, instance.series_uid) == (dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
    assert (instance.modality, instance.image_type) == ("CT", ("ORIGINAL", "PRIMARY", "AXIAL"))
    assert (instance.rows, instance.columns, instance.instance_number) == (32, 40, 3)
    assert instance.position == tuple(map(float, dataset.ImagePositionPatient))
    assert instance.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert instance.pixel_spacing == (9.0, 10.0)
    assert instance.slice_thickness == 10.0
    assert instance.transfer_syntax_uid == syntax


def test_a_file_of_the_spool_is_read_like_its_data_set(tmp_path: Path, tiny_ct: list[Path]) -> None:
    for syntax in SYNTAXES:
        data = encode(pydicom.dcmread(tiny_ct[3]), syntax)
        path = tmp_path / "a.dcm"
        path.write_bytes(file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", syntax, "CT1") + data)
        found = read_file(path)
        assert found.calling_ae == "CT1"
        assert found.to_json() == {**read_instance(data, syntax).to_json(), "calling_ae": "CT1"}


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"\0\0", "empty"),
        (b"../../x\0", "not a valid UID"),
        (b"1.2\\1.3\0", None),
        (b"1" * 66, "not a valid UID"),
        (b"\xff\xfe", "empty"),
    ],
)
def test_an_identifier_that_is_none_is_refused_by_name(keyword: str, value: bytes, reason: str | None) -> None:
    tag = f"UI{pydicom.datadict.tag_for_keyword(keyword):08X}"
    if reason is None:
        assert read_instance(minimal(**{tag: value}), ExplicitVRLittleEndian).transfer_syntax_uid
        return
    with pytest.raises(Refused, match=f"{keyword} is ") as caught:
        read_instance(minimal(**{tag: value}), ExplicitVRLittleEndian)
    assert value.strip(b"\0") == b"" or value.decode("latin-1").strip("\0") not in str(caught.value)


def test_an_identifier_of_bytes_is_refused() -> None:
    raw = minimal(UI00080018=b"", OB00080018=b"")
    data = raw.replace(element(8, 0x18, b"UI", b""), b"").replace(
        element(8, 0x18, b"OB", b""), struct.pack("<HH2sHI", 8, 0x18, b"OB", 0, 2) + b"12"
    )
    with pytest.raises(Refused, match="SOPInstanceUID is not a valid UID"):
        read_instance(data, ExplicitVRLittleEndian)


def test_what_a_database_would_not_take_is_left_out() -> None:
    """A NUL in a text, or a number that is none: PostgreSQL refuses both, long after the sender has gone."""
    data = minimal(
        CS00080060=b"C\0T ",
        LO0008103E=b"a\x01b\xff",
        DS00200032=b"nan\\0\\0 ",
        DS00280030=b"inf\\1 ",
        DS00180050=b"1e999 ",
        IS00200011=b"9e99",
    )
    instance = read_instance(data, ExplicitVRLittleEndian)
    assert instance.modality == "CT"
    assert instance.series_description.isprintable()
    assert (instance.position, instance.pixel_spacing, instance.slice_thickness) == ((), (), None)
    assert instance.series_number is None or isinstance(instance.series_number, int)


@pytest.mark.parametrize("named", SYNTAXES[:2], ids=["as implicit", "as explicit"])
def test_a_data_set_in_another_encoding_than_named_is_refused(tiny_ct: list[Path], named: str) -> None:
    """Nobody after us would be able to read it."""
    real = next(s for s in SYNTAXES[:2] if s != named)
    with pytest.raises(Refused, match="not encoded as its transfer syntax says"):
        read_instance(encode(pydicom.dcmread(tiny_ct[1]), real), named)


@pytest.mark.parametrize("data", [b"", b"\0", b"DICM", b"\xff" * 100, bytes(1000), b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_rubbish_is_refused(data: bytes, syntax: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Refused):
            read_instance(data, syntax)


def test_a_truncated_header_is_refused_wherever_it_ends(tiny_ct: list[Path]) -> None:
    data = encode(pydicom.dcmread(tiny_ct[1], stop_before_pixels=True))
    series = data.index(b"\x20\x00\x0e\x00")
    for end in range(0, series + 8, 7):
        with pytest.raises(Refused):
            read_instance(data[:end], ExplicitVRLittleEndian)


def test_pixels_are_never_read(tiny_phantom: ChestPhantom, tiny_ct: list[Path]) -> None:
    """64 MB of pixels cost neither time nor memory."""
    dataset = pydicom.dcmread(tiny_ct[1])
    dataset.PixelData = bytes(64 << 20)
    data = encode(dataset)
    tracemalloc.start()
    try:
        read_instance(data, ExplicitVRLittleEndian)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_deflate_bomb_is_not_inflated() -> None:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            read_instance(bomb, DeflatedExplicitVRLittleEndian)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("depth", [100, 20_000])
def test_deep_nesting_ends_in_an_answer(depth: int) -> None:
    """A sequence in a sequence in a sequence …, each of undefined length."""
    endless = 0xFFFFFFFF
    opening = struct.pack("<HH2sHIHHI", 0x18, 0xA001, b"SQ", 0, endless, 0xFFFE, 0xE000, endless)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    nested = opening * depth + closing * depth
    whole = minimal()
    cut = whole.index(b"\x20\x00\x0d\x00")
    started = time.monotonic()
    try:
        read_instance(whole[:cut] + nested + whole[cut:], ExplicitVRLittleEndian)
    except Refused as error:
        assert "RecursionError" in str(error)
    assert time.monotonic() - started < 10


def _real(folder: Path) -> Iterator[tuple[str, bytes]]:
    bundled = Path(get_testdata_file("CT_small.dcm")).parent
    for root in (bundled, folder):
        for path in sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size < 4 << 20):
            if path.suffix == ".xz":
                yield from _packed(path)
            elif path.suffix not in (".md", ".json", ".py", ".txt", ".nii", ".gz", ".pt"):
                yield path.name, path.read_bytes()


def _packed(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.stat().st_size > 1 << 20:
        return
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, file.read()


def test_every_real_or_broken_file_gives_an_instance_or_a_refusal(data: Path, tmp_path: Path) -> None:
    """Over a thousand files: pydicom's own, and the collections beside this repository, the fuzz corpus among them."""
    answers: dict[type, int] = {Instance: 0, Refused: 0}
    path = tmp_path / "file"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in _real(data):
            path.write_bytes(content)
            started = time.monotonic()
            for read in (lambda: read_file(path), lambda c=content: read_instance(c[132:], ExplicitVRLittleEndian)):
                try:
                    answers[type(read())] += 1
                except Refused:
                    answers[Refused] += 1
            assert time.monotonic() - started < 5, name
    assert answers[Instance] > 500
    assert answers[Refused] > 50


def test_damaged_headers_give_an_instance_or_a_refusal(tiny_ct: list[Path]) -> None:
    """2,000 copies with a few bytes changed each, the same ones every time."""
    rng = np.random.default_rng(5)
    original = encode(pydicom.dcmread(tiny_ct[1], stop_before_pixels=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2000):
            data = bytearray(original)
            for at in rng.integers(0, len(data), 4):
                data[at] = rng.integers(0, 256)
            try:
                instance = read_instance(bytes(data), ExplicitVRLittleEndian)
            except Refused:
                continue
            assert set(instance.study_uid) <= set("0123456789.")


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="none is no readable DICOM file"):
        read_file(tmp_path / "none")
