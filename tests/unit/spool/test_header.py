"""The header reader meets whatever a stranger sends: it answers with an instance or Refused, quickly, and no pixel."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from overread.domain.errors import Refused
from overread.domain.study import Instance
from overread.simulate.phantom import ChestPhantom
from overread.spool.header import read_file, read_header, read_instance
from overread.spool.limits import LIMITS, Limits
from overread.spool.meta import file_meta

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


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, count: data[offset : offset + count]


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """One short explicit VR little endian element."""
    return struct.pack("<HH", group, number) + vr + struct.pack("<H", len(value)) + value


def minimal(**values: bytes) -> bytes:
    """An instance of elements as raw bytes; ``values`` adds or exchanges some by their VR and tag, ``CS00080060``."""
    raw = {
        "UI00080016": b"1.2.840.10008.5.1.4.1.1.88.22",
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


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_an_image_that_is_cut_off_anywhere_is_refused(tiny_ct: list[Path], syntax: str) -> None:
    """At every byte. Nothing of the patient is in the reason."""
    dataset = pydicom.dcmread(tiny_ct[1])
    dataset.PatientName = "Doe^Jane"
    dataset.PixelData = bytes(2 * 4 * 3)
    dataset.Rows, dataset.Columns = 4, 3
    data = encode(dataset, syntax)
    read_instance(data, syntax)
    for end in range(len(data)):
        with pytest.raises(Refused) as caught:
            read_instance(data[:end], syntax)
        assert "Doe" not in str(caught.value)


def test_what_has_no_pixels_may_end_between_two_elements() -> None:
    """Nothing in a report tells that more was to come."""
    whole = minimal(LO0040A043=b"")
    assert read_instance(whole[:-8], ExplicitVRLittleEndian) == read_instance(whole, ExplicitVRLittleEndian)


def image(length: int | None = None, **values: bytes) -> bytes:
    """4 rows, 3 columns, 16 bits, and ``length`` bytes of pixels; ``values`` as in ``minimal``."""
    size = {"US00280002": b"\1\0", "US00280010": b"\4\0", "US00280011": b"\3\0", "US00280100": b"\x10\0"}
    raw = {"UI00080016": b"1.2.840.10008.5.1.4.1.1.2\0", **size, **values}
    pixels = b"" if length is None else struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, length) + bytes(length)
    return minimal(**raw) + pixels


@pytest.mark.parametrize(
    ("least", "values"),
    [
        (24, {}),
        (48, {"IS00280008": b"2 "}),
        (72, {"US00280002": b"\3\0"}),
        (2, {"US00280100": b"\1\0"}),  # 12 bits
        (18, {"US00280100": b"\x0c\0"}),
        (24, {"US00280100": b"\x08\0", "US00280002": b"\3\0", "CS00280004": b"YBR_FULL_422"}),
        (18, {"US00280100": b"\x08\0", "US00280002": b"\3\0", "CS00280004": b"YBR_PARTIAL_420 "}),
    ],
)
def test_pixels_are_at_least_as_many_as_the_header_says(least: int, values: dict[str, bytes]) -> None:
    for length in (least, least + 1, least + 1000):
        assert read_instance(image(length, **values), ExplicitVRLittleEndian).rows == 4
    for length in (0, least - 1):
        with pytest.raises(Refused, match=f"PixelData .7FE0,0010. has {length} bytes, and the header says {least}"):
            read_instance(image(length, **values), ExplicitVRLittleEndian)
    with pytest.raises(Refused, match="ends without pixel data"):
        read_instance(image(None, **values), ExplicitVRLittleEndian)


def test_an_image_without_pixels_is_taken_from_who_counts_its_groups() -> None:
    """Headers alone, as some archives hold them; the last group must be as long as it says."""
    group = [v for k, v in _elements(image(None)) if k >> 16 == 0x28]
    length = sum(map(len, group))
    head = image(None)[:-length] + element(0x28, 0, b"UL", struct.pack("<I", length))
    assert read_instance(head + b"".join(group), ExplicitVRLittleEndian).rows == 4
    for shorter in range(1, len(group)):
        with pytest.raises(Refused, match="ends without pixel data"):
            read_instance(head + b"".join(group[:-shorter]), ExplicitVRLittleEndian)


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """(tag, bytes) of elements whose length has 16 bits."""
    found, at = [], 0
    while at < len(data):
        group, number, length = *struct.unpack_from("<HH", data, at), struct.unpack_from("<H", data, at + 6)[0]
        found.append((group << 16 | number, data[at : at + 8 + length]))
        at += 8 + length
    return found


def test_pixels_that_are_elsewhere_or_not_described_are_not_missed() -> None:
    spectroscopy = image(None, UI00080016=b"1.2.840.10008.5.1.4.1.1.4.2\0", US00280100=b"", US00280002=b"")
    assert read_instance(spectroscopy, ExplicitVRLittleEndian).rows == 4
    assert read_instance(image(None), "1.2.840.10008.1.2.4.94").rows == 4
    provider = struct.pack("<HH2sHI", 0x28, 0x7FE0, b"UR", 0, 14) + b"https://a.b/c "
    assert read_instance(image(None) + provider, ExplicitVRLittleEndian).rows == 4
    assert read_instance(image(0, US00280010=b""), ExplicitVRLittleEndian).rows is None


def encapsulated(end: bytes = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)) -> bytes:
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"\xff\xd8\xff\xdb"
    return image() + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + fragment + end


def test_pixels_are_encapsulated_where_the_transfer_syntax_says_so_and_only_there() -> None:
    assert read_instance(encapsulated(), JPEGBaseline8Bit).rows == 4
    for data, syntax in ((encapsulated(), ExplicitVRLittleEndian), (image(24), JPEGBaseline8Bit)):
        with pytest.raises(Refused, match=r"PixelData .7FE0,0010. is .*not encoded as its transfer syntax says"):
            read_instance(data, syntax)
    with pytest.raises(Refused, match=r"7FE0,0010. has no delimiter"):
        read_instance(encapsulated(b""), JPEGBaseline8Bit)


def test_a_transfer_syntax_of_the_future_is_explicit_and_one_of_somebody_is_refused() -> None:
    assert read_instance(encapsulated(), "1.2.840.10008.1.2.4.999").transfer_syntax_uid == "1.2.840.10008.1.2.4.999"
    with pytest.raises(Refused, match="not one of the Standard"):
        read_instance(encapsulated(), "1.2.840.113619.5.2")


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
@pytest.mark.parametrize("undefined", [False, True])
def test_what_equipment_contributed_is_read(syntax: str, undefined: bool) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    code = Dataset()
    code.CodeValue = "109102"
    contributor = Dataset()
    contributor.PurposeOfReferenceCodeSequence = [code]
    dataset.ContributingEquipmentSequence = [contributor, Dataset(), contributor]
    for sequence in (dataset["ContributingEquipmentSequence"], contributor["PurposeOfReferenceCodeSequence"]):
        sequence.is_undefined_length = undefined
    del dataset[0x00431029:0x00431030]
    assert read_instance(encode(dataset, syntax), syntax).equipment_purposes == ("109102", "109102")


def test_equipment_that_cannot_be_read_is_none() -> None:
    """An image is not worth less for who is said to have touched it."""
    assert read_instance(minimal(LO0018A001=b"109102"), ExplicitVRLittleEndian).equipment_purposes == ()
    for vr in (b"SQ", b"UN"):
        broken = struct.pack("<HH2sHI", 0x18, 0xA001, vr, 0, 6) + b"109102"
        assert read_instance(minimal() + broken, ExplicitVRLittleEndian).equipment_purposes == ()


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


def test_a_deflate_bomb_ends_in_a_refusal_and_takes_no_memory(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            read_header(reader(bomb), len(bomb), DeflatedExplicitVRLittleEndian, scratch=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "megabytes"),
    [(Limits(inflated_bytes=4 << 20), 8), (LIMITS, 32), (Limits(inflated_ratio=2000), 8), (LIMITS, 8)],
)
def test_what_inflates_absurdly_is_refused_on_the_way(limits: Limits, megabytes: int) -> None:
    """32 MB out of 32 kB; 8 MB may be one constant image."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    data = packer.compress(image(megabytes << 20)) + packer.flush()
    absurd = megabytes > 16 or megabytes << 20 > limits.inflated_bytes
    with pytest.raises(Refused, match="inflates to more than") if absurd else nullcontext():
        read_header(reader(data), len(data), DeflatedExplicitVRLittleEndian, limits=limits)


def test_a_deflated_stream_ends_where_the_data_set_ends(tmp_path: Path) -> None:
    """But for a zero that makes it even (PS3.5 Section A.5), and the end of a gzip file, which some leave there."""
    data = encode(pydicom.dcmread(get_testdata_file("CT_small.dcm")), DeflatedExplicitVRLittleEndian)
    for trailer in (b"", b"\0", bytes(range(8)), bytes(range(8)) + b"\0"):
        assert read_instance(data + trailer, DeflatedExplicitVRLittleEndian).rows == 128
    with pytest.raises(Refused, match="goes on after its stream"):
        read_instance(data + bytes(10), DeflatedExplicitVRLittleEndian)
    with pytest.raises(Refused, match="is damaged"):
        read_instance(b"\xff" + data[1:], DeflatedExplicitVRLittleEndian)
    with pytest.raises(Refused, match="ends before its stream"):
        read_instance(data[:-1], DeflatedExplicitVRLittleEndian)
    with pytest.raises(FileNotFoundError):  # the disk's fault is not the sender's
        read_header(reader(data), len(data), DeflatedExplicitVRLittleEndian, scratch=tmp_path / "gone")


def test_a_disk_that_fails_is_no_verdict_on_the_object() -> None:
    def read_at(offset: int, count: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_header(read_at, 1000, ExplicitVRLittleEndian)


@pytest.mark.parametrize("depth", [60, 65, 20_000])
def test_deep_nesting_is_read_or_refused_in_no_time(depth: int) -> None:
    """A sequence in a sequence in a sequence …, each of undefined length: 64 are taken."""
    endless = 0xFFFFFFFF
    opening = struct.pack("<HH2sHIHHI", 0x18, 0xA002, b"SQ", 0, endless, 0xFFFE, 0xE000, endless)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    nested = opening * depth + closing * depth
    whole = minimal()
    cut = whole.index(b"\x20\x00\x0d\x00")
    started = time.monotonic()
    with pytest.raises(Refused, match="nests more than 64 deep") if depth > 64 else nullcontext():
        read_instance(whole[:cut] + nested + whole[cut:], ExplicitVRLittleEndian)
    assert time.monotonic() - started < 5
    contributing = nested.replace(b"\x18\x00\x02\xa0", b"\x18\x00\x01\xa0")
    with contextlib.suppress(Refused):  # the one sequence that is looked into
        read_instance(whole[:cut] + contributing + whole[cut:], ExplicitVRLittleEndian)
    assert time.monotonic() - started < 10


def _by_pydicom(dataset: Dataset, syntax: str) -> Instance:
    """The same instance, read attribute by attribute by somebody else."""

    def values(keyword: str) -> list[Any]:
        value = dataset.get(keyword)
        if value is None or value == "":
            return []
        return list(value) if isinstance(value, MultiValue | list) else [value]

    def text(keyword: str) -> str:
        return "".join(c for c in str(([*values(keyword), ""])[0]) if c.isprintable()).strip()

    def number(keyword: str, kind: type = int) -> Any:
        with contextlib.suppress(ValueError):  # "1A"
            return kind(values(keyword)[0]) if values(keyword) else None
        return None

    def numbers(keyword: str) -> tuple[float, ...]:
        return tuple(map(float, values(keyword)))

    return Instance(
        *map(text, ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")),
        transfer_syntax_uid=syntax,
        modality=text("Modality"),
        image_type=tuple(str(value).strip() for value in values("ImageType")),
        series_number=number("SeriesNumber"),
        instance_number=number("InstanceNumber"),
        series_description=text("SeriesDescription"),
        body_part=text("BodyPartExamined"),
        manufacturer=text("Manufacturer"),
        model_name=text("ManufacturerModelName"),
        frame_of_reference_uid=text("FrameOfReferenceUID"),
        acquisition_number=number("AcquisitionNumber"),
        rows=number("Rows"),
        columns=number("Columns"),
        number_of_frames=number("NumberOfFrames") or 1,
        samples_per_pixel=number("SamplesPerPixel") or 1,
        position=numbers("ImagePositionPatient"),
        orientation=numbers("ImageOrientationPatient"),
        pixel_spacing=numbers("PixelSpacing"),
        slice_thickness=number("SliceThickness", float),
        gantry_tilt=number("GantryDetectorTilt", float),
        equipment_purposes=tuple(
            code.CodeValue
            for item in dataset.get("ContributingEquipmentSequence") or ()
            for code in item.get("PurposeOfReferenceCodeSequence") or ()
        ),
    )


# What pydicom reads all the same; and why it is refused.
WRONG = {
    "SC_rgb_jpeg.dcm": "not encoded as its transfer syntax says",
    "rtplan_truncated.dcm": "runs past the end",
    "MR_truncated.dcm": "runs past the end",
}


def _compare(paths: list[Path], tmp_path: Path) -> int:
    compared = 0
    for path in paths:
        content = path.read_bytes()
        try:
            whole = pydicom.dcmread(io.BytesIO(content))
            start, syntax = 144 + whole.file_meta.FileMetaInformationGroupLength, whole.file_meta.TransferSyntaxUID
            expected = _by_pydicom(whole, syntax)
        except (InvalidDicomError, AttributeError, KeyError, NotImplementedError, OSError, struct.error):
            continue
        if not all((expected.sop_instance_uid, expected.sop_class_uid, expected.study_uid, expected.series_uid)):
            continue
        # Those of its DICOMDIRs are CT headers without pixels.
        wrong = "ends without pixel data" if path.name.startswith("IM0000") else WRONG.get(path.name)
        if wrong:
            with pytest.raises(Refused, match=wrong):
                read_instance(content[start:], syntax)
            continue
        assert read_instance(content[start:], syntax) == expected, path.name
        (tmp_path / "file").write_bytes(content)
        calling_ae = str(whole.file_meta.get("SourceApplicationEntityTitle", ""))
        assert read_file(tmp_path / "file") == replace(expected, calling_ae=calling_ae), path.name
        compared += 1
    return compared


@pytest.mark.filterwarnings("ignore")
def test_what_is_read_is_what_pydicom_reads_in_its_own_files(tmp_path: Path) -> None:
    bundled = Path(get_testdata_file("CT_small.dcm")).parent
    assert _compare(sorted(p for p in bundled.rglob("*") if p.is_file()), tmp_path) > 80


@pytest.mark.filterwarnings("ignore")
def test_what_is_read_is_what_pydicom_reads_in_many_transfer_syntaxes_and_languages(data: Path, tmp_path: Path) -> None:
    folders = [data / name for name in ("transfer-syntaxes", "charsets", "enhanced-multiframe", "not-for-ai")]
    assert _compare(sorted(p for folder in folders for p in folder.rglob("*") if p.is_file()), tmp_path) > 50


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"", b"Lunge ", "Lunge"),
        (b"ISO_IR 100", b"Sch\xe4del", "Schädel"),
        (b"ISO_IR 192", "肺\\二".encode(), "肺"),
        (b"GB18030 ", "肺誠\\二".encode("gb18030"), "肺誠"),
        (b"ISO_IR 144", b"\xbb\xd5\xd3\xda\xd8\xd5", "Легкие"),
        (b"\\ISO 2022 IR 87 ", b"\x1b$B;3ED\x1b(B^T", "山田^T"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf", "김희중"),
        (b"ISO_IR 192", b"a\xff", "a\ufffd"),
    ],
)
def test_a_description_is_read_in_its_language(charset: bytes, raw: bytes, text: str) -> None:
    data = minimal(CS00080005=charset, LO0008103E=raw, LO00080070=raw, CS00080060=b"\xe4T")
    instance = read_instance(data, ExplicitVRLittleEndian)
    assert (instance.series_description, instance.manufacturer) == (text, text)
    assert instance.modality == "äT"  # a code string is never translated (PS3.5 Section 6.1.2.2)


@pytest.mark.parametrize(
    ("vr", "raw", "number"),
    [
        ("IS", b"12", 12),
        ("IS", b" -3 \0", -3),
        ("IS", b"3.0 ", 3),
        ("IS", b"3.5 ", None),
        ("IS", b"", None),
        ("IS", b"  ", None),
        ("IS", b"x7", None),
        ("IS", b"5\\x ", 5),
        ("IS", b"9" * 30, None),
        ("DS", b"4.0 ", 4),
        ("US", b"\2\1", 258),
        ("US", b"\2", None),
        ("SL", b"\xff\xff\xff\xff", -1),
        ("FL", struct.pack("<f", 7), 7),
        ("FL", struct.pack("<f", float("nan")), None),
        ("CS", b"12", 12),
    ],
)
def test_a_number_is_read_as_it_is_written_or_left_out(vr: str, raw: bytes, number: int | None) -> None:
    found = read_instance(minimal(**{f"{vr}00200013": raw}), ExplicitVRLittleEndian)
    assert found.instance_number == number


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
    original = encode(pydicom.dcmread(tiny_ct[1]))
    header_bytes = original.index(b"\xe0\x7f\x10\x00") + 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2000):
            data = bytearray(original)
            for at in rng.integers(0, header_bytes, 4):
                data[at] = rng.integers(0, 256)
            try:
                instance = read_instance(bytes(data), ExplicitVRLittleEndian)
            except Refused:
                continue
            assert set(instance.study_uid) <= set("0123456789.")


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="none is no readable DICOM file"):
        read_file(tmp_path / "none")
